//! Templates for models that bring none.

/// ChatML, for vocabularies that have its tokens.
pub(super) const CHATML: &str = "\
{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Headings in plain words; an answer ends with the tokenizer's end token. `mark` is what a heading begins with.
pub(super) const PLAIN: &str = "\
{% for message in messages %}\
{% if message['role'] == 'system' or message['role'] == 'developer' %}{{ message['content'] + '\n\n' }}\
{% elif message['role'] == 'assistant' %}{{ mark + 'Response:\n' + message['content'] + (eos_token or '') }}{% if not loop.last %}{{ '\n\n' }}{% endif %}\
{% elif message['role'] == 'tool' %}{{ mark + 'Result:\n' + message['content'] + '\n\n' }}\
{% else %}{{ mark + 'Instruction:\n' + message['content'] + '\n\n' }}{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ mark + 'Response:\n' }}{% endif %}";
