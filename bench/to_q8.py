#!/usr/bin/env python3
"""Makes a GGUF file whose matrices are Q8_0 from one with other blocks, for timing: `to_q8.py FROM.gguf TO.gguf` (needs `gguf`)."""
import sys
import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFReader, GGUFValueType, GGUFWriter, quants

reader = GGUFReader(sys.argv[1])
arch = reader.fields["general.architecture"].contents()
writer = GGUFWriter(sys.argv[2], arch)
for key, field in reader.fields.items():
    if key.startswith("GGUF.") or key == "general.architecture":
        continue
    kind = field.types[0]
    sub = field.types[-1] if kind == GGUFValueType.ARRAY else None
    writer.add_key_value(key, field.contents(), kind, sub_type=sub)
for t in reader.tensors:
    if len(t.shape) < 2:
        writer.add_tensor(t.name, np.array(t.data), raw_dtype=t.tensor_type)
    else:
        values = quants.dequantize(t.data, t.tensor_type)
        writer.add_tensor(t.name, quants.quantize(values, Type.Q8_0), raw_dtype=Type.Q8_0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
