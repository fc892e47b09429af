//! A model is brought whole, once, and in the layout that other tools read; whatever the network does on the way.

use std::fs;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use crate::support::{
    Answer, COMMIT, Home, Hub, WEIGHTS, content, fixture, hash_of, honest, request, weights_hash,
};
use luthier_hub::{Error, Event, Repo, Request, pull, resolve_in};

const BROUGHT: [&str; 4] = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"];

#[test]
fn a_model_is_brought_whole_into_the_shared_layout() {
    let hub = Hub::honest();
    let home = Home::new(&hub.url());
    let mut events = Vec::new();
    let pulled =
        pull(&home.settings, &request("org/tiny"), &mut |event| events.push(format!("{event:?}"))).unwrap();
    assert_eq!(pulled.path, home.model().join("snapshots").join(COMMIT));
    assert_eq!(pulled.commit, COMMIT);
    let names: Vec<&str> = pulled.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, BROUGHT);
    for file in &pulled.files {
        let expected = fixture(&file.name);
        assert_eq!(fs::read(pulled.path.join(&file.name)).unwrap(), expected, "{}", file.name);
        assert_eq!(fs::read(home.blob(&file.name)).unwrap(), expected, "{}", file.name);
        assert_eq!((file.bytes, file.received), (expected.len() as u64, expected.len() as u64));
    }
    assert_eq!(fs::read_to_string(home.model().join("refs/main")).unwrap(), COMMIT);
    assert!(!home.tree().iter().any(|path| path.ends_with("incomplete")), "{:?}", home.tree());
    assert!(events[0].starts_with("Listed { files: 4"), "{events:?}");
    assert!(events.iter().any(|event| event.starts_with("Advanced") && event.contains("model.safetensors")));
    // Code, pickles and what nobody needs are not even asked for.
    for asked in hub.asked() {
        assert!(
            ![".py", ".bin", ".md", ".gguf"].iter().any(|ending| asked.path.ends_with(ending)),
            "{}",
            asked.path
        );
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
        assert_eq!(asked.header("authorization"), None);
    }
    assert_eq!(resolve_in(&home.settings, home.folder.path(), "org/tiny").unwrap(), pulled.path);
}

#[cfg(unix)]
#[test]
fn snapshots_are_relative_links_to_blobs() {
    let hub = Hub::honest();
    let home = Home::new(&hub.url());
    let pulled = home.pull().unwrap();
    let target = fs::read_link(pulled.path.join("config.json")).unwrap();
    assert_eq!(target.to_str().unwrap(), format!("../../blobs/{}", hash_of("config.json")));
}

#[test]
fn a_second_pull_only_asks_whether_the_branch_has_moved() {
    let hub = Hub::honest();
    let home = Home::new(&hub.url());
    home.pull().unwrap();
    let (before, tree) = (hub.asked().len(), home.tree());
    let again = home.pull().unwrap();
    assert!(again.files.iter().all(|file| file.received == 0));
    assert_eq!(hub.asked().len(), before + 1);
    assert_eq!(home.tree(), tree);
}

#[test]
fn a_copy_without_a_blob_is_not_brought_again() {
    // What other tools leave where there are no links.
    let hub = Hub::honest();
    let home = Home::new(&hub.url());
    let pulled = home.pull().unwrap();
    let path = pulled.path.join("model.safetensors");
    fs::remove_file(&path).unwrap();
    fs::rename(home.blob("model.safetensors"), &path).unwrap();
    assert!(home.pull().unwrap().files.iter().all(|file| file.received == 0));
    assert_eq!(hub.asked_for(WEIGHTS).len(), 1);
}

#[test]
fn what_is_lost_from_the_cache_is_brought_again() {
    let hub = Hub::honest();
    let home = Home::new(&hub.url());
    let pulled = home.pull().unwrap();
    fs::remove_file(home.blob("config.json")).unwrap();
    fs::write(home.blob("tokenizer.json"), "half").unwrap();
    // On systems without links the copies are lost with them.
    for name in ["config.json", "tokenizer.json"] {
        fs::remove_file(pulled.path.join(name)).unwrap();
    }
    let again = home.pull().unwrap();
    let received: Vec<bool> = again.files.iter().map(|file| file.received > 0).collect();
    assert_eq!(received, [false, true, false, true]);
    assert_eq!(fs::read(pulled.path.join("config.json")).unwrap(), fixture("config.json"));
}

#[test]
fn a_cut_connection_is_taken_up_where_it_broke() {
    let hub = Hub::start(|asked| match (asked.path.as_str(), asked.before) {
        (WEIGHTS, 0) => honest(asked).cut_after(10_000),
        (WEIGHTS, 1) => honest(asked).cut_after(5_000),
        _ => honest(asked),
    });
    let home = Home::new(&hub.url());
    let mut retries = 0;
    let pulled = pull(&home.settings, &request("org/tiny"), &mut |event| {
        retries += u32::from(matches!(
            event,
            Event::Retrying { file: "model.safetensors", reason: Error::Cut { .. }, .. }
        ));
    });
    let pulled = pulled.unwrap();
    assert_eq!(fs::read(pulled.path.join("model.safetensors")).unwrap(), fixture("model.safetensors"));
    let ranges: Vec<_> =
        hub.asked_for(WEIGHTS).iter().map(|asked| asked.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=10000-".to_owned()), Some("bytes=15000-".to_owned())]);
    assert_eq!(retries, 2);
    let weights = pulled.files.iter().find(|file| file.name == "model.safetensors").unwrap();
    assert_eq!(weights.received, weights.bytes); // no byte came twice
}

#[test]
fn a_pull_that_failed_goes_on_with_the_next_one() {
    let hub = Hub::start(|asked| {
        if asked.path == WEIGHTS && asked.before == 0 {
            honest(asked).cut_after(7_000)
        } else {
            honest(asked)
        }
    });
    let mut home = Home::new(&hub.url());
    home.settings.attempts = 1;
    let error = home.pull().unwrap_err();
    assert!(matches!(error, Error::Cut { got: 7_000, attempts: 1, .. }), "{error}");
    assert_eq!(fs::metadata(home.partial("model.safetensors")).unwrap().len(), 7_000);
    // Half a model is not a model.
    assert!(resolve_in(&home.settings, home.folder.path(), "org/tiny").is_err());
    let pulled = home.pull().unwrap();
    assert_eq!(hub.asked_for(WEIGHTS)[1].header("range"), Some("bytes=7000-"));
    assert_eq!(fs::read(pulled.path.join("model.safetensors")).unwrap(), fixture("model.safetensors"));
    let weights = pulled.files.iter().find(|file| file.name == "model.safetensors").unwrap();
    assert_eq!(weights.received, weights.bytes - 7_000);
}

#[test]
fn a_server_that_always_breaks_off_early_is_given_up() {
    // It ignores ranges as well, so that no attempt after the first gets further.
    let hub = Hub::start(|asked| {
        if asked.path == WEIGHTS {
            Answer::new(200, fixture("model.safetensors")).cut_after(100)
        } else {
            honest(asked)
        }
    });
    let home = Home::new(&hub.url());
    let error = home.pull().unwrap_err();
    assert!(matches!(error, Error::Cut { attempts: 5, .. }), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("again")));
}

#[test]
fn a_server_that_ignores_ranges_starts_over() {
    let hub = Hub::start(|asked| match (asked.path.as_str(), asked.before) {
        (WEIGHTS, 0) => honest(asked).cut_after(10_000),
        (WEIGHTS, _) => Answer::new(200, fixture("model.safetensors")),
        _ => honest(asked),
    });
    let home = Home::new(&hub.url());
    let pulled = home.pull().unwrap();
    assert_eq!(hub.asked_for(WEIGHTS)[1].header("range"), Some("bytes=10000-"));
    assert_eq!(fs::read(pulled.path.join("model.safetensors")).unwrap(), fixture("model.safetensors"));
}

#[test]
fn a_part_that_was_not_asked_for_is_not_used() {
    for wrong in ["bytes 9999-24695/24696", "bytes */24696", "garbage"] {
        let hub = Hub::start(move |asked| match (asked.path.as_str(), asked.before) {
            (WEIGHTS, 0) => honest(asked).cut_after(10_000),
            (WEIGHTS, 1) => {
                Answer::new(206, &fixture("model.safetensors")[9_999..]).with("Content-Range", wrong)
            }
            _ => honest(asked),
        });
        let home = Home::new(&hub.url());
        let pulled = home.pull().unwrap();
        assert_eq!(hub.asked_for(WEIGHTS)[2].header("range"), None, "{wrong}");
        assert_eq!(fs::read(pulled.path.join("model.safetensors")).unwrap(), fixture("model.safetensors"));
    }
}

#[test]
fn a_partial_file_that_is_not_the_start_of_the_file_is_dropped() {
    let hub = Hub::honest();
    let length = fixture("model.safetensors").len();
    for garbage in [vec![7; 500], vec![7; length], vec![7; length + 1]] {
        let home = Home::new(&hub.url());
        fs::create_dir_all(home.model().join("blobs")).unwrap();
        fs::write(home.partial("model.safetensors"), &garbage).unwrap();
        let pulled = home.pull().unwrap();
        assert_eq!(
            fs::read(pulled.path.join("model.safetensors")).unwrap(),
            fixture("model.safetensors"),
            "{}",
            garbage.len()
        );
    }
}

#[test]
fn wrong_content_keeps_nothing() {
    for name in ["model.safetensors", "config.json"] {
        let hub = Hub::start(move |asked| {
            let mut answer = honest(asked);
            if asked.path.ends_with(name) {
                let last = answer.body.len() - 1;
                answer.body[last] ^= 1;
            }
            answer
        });
        let home = Home::new(&hub.url());
        let error = home.pull().unwrap_err();
        assert!(
            matches!(&error, Error::HashMismatch { file, expected, .. } if file == name && *expected == hash_of(name)),
            "{error}"
        );
        assert_eq!(error.code(), "hub-hash");
        let hash = hash_of(name);
        let left: Vec<String> = home
            .tree()
            .into_iter()
            .filter(|path| path.contains(&hash) && !path.contains(".locks/"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(
            !home.tree().iter().any(|path| path.ends_with(name) || path.ends_with("refs/main")),
            "{:?}",
            home.tree()
        );
        let path = format!("/org/tiny/resolve/{COMMIT}/{name}");
        assert_eq!(hub.asked_for(&path).len(), 1); // a wrong answer is not asked for again
    }
}

#[test]
fn more_bytes_than_announced_keep_nothing() {
    let hub = Hub::start(|asked| {
        let mut answer = honest(asked);
        if asked.path == WEIGHTS {
            answer.body.push(0);
        }
        answer
    });
    let home = Home::new(&hub.url());
    let error = home.pull().unwrap_err();
    assert!(matches!(error, Error::BadReply { .. }), "{error}");
    assert!(!home.blob("model.safetensors").exists());
    assert_eq!(fs::metadata(home.partial("model.safetensors")).unwrap().len(), 0);
}

#[test]
fn compressed_content_is_refused_and_not_taken_for_the_file() {
    let hub = Hub::start(|asked| {
        if asked.path == WEIGHTS { honest(asked).with("Content-Encoding", "gzip") } else { honest(asked) }
    });
    let home = Home::new(&hub.url());
    let error = home.pull().unwrap_err();
    assert!(matches!(&error, Error::BadReply { reason, .. } if reason.contains("gzip")), "{error}");
    assert!(!home.blob("model.safetensors").exists());
}

#[test]
fn passing_trouble_is_waited_out() {
    let hub = Hub::start(|asked| match asked.before {
        0 => Answer::new(503, "busy"),
        1 => Answer::new(429, "slower").with("Retry-After", "3600"), // bounded by the settings
        _ => honest(asked),
    });
    let home = Home::new(&hub.url());
    let mut statuses = Vec::new();
    pull(&home.settings, &request("org/tiny"), &mut |event| {
        if let Event::Retrying { reason: Error::Server { status, .. }, .. } = event {
            statuses.push(*status);
        }
    })
    .unwrap();
    assert_eq!(statuses, [503, 429].repeat(5)); // the listing and four files
}

#[test]
fn lasting_trouble_is_named_with_the_servers_words() {
    let hub = Hub::start(|_| Answer::new(503, "").with("X-Error-Message", "down for repair"));
    let home = Home::new(&hub.url());
    let error = home.pull().unwrap_err();
    assert!(error.to_string().ends_with("answered 503: \"down for repair\""), "{error}");
    assert_eq!(hub.asked().len(), 5);
    assert!(home.tree().is_empty(), "{:?}", home.tree());
}

#[test]
fn no_connection_is_told_after_all_attempts() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let home = Home::new(&format!("http://{address}"));
    let error = home.pull().unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { attempts: 5, host, .. } if *host == address.to_string()),
        "{error}"
    );
    assert!(error.help().is_some_and(|help| help.contains("HTTPS_PROXY")));
}

#[test]
fn two_pulls_at_once_bring_each_file_once() {
    // The first holds the weights' lock until the second has said that it waits for it.
    let (waits, waited) = mpsc::channel();
    let waited = Mutex::new(waited);
    let hub = Hub::start(move |asked| {
        if asked.path == WEIGHTS {
            waited
                .lock()
                .unwrap()
                .recv_timeout(Duration::from_secs(15))
                .expect("the second pull must wait for the first");
        }
        honest(asked)
    });
    let home = Home::new(&hub.url());
    let pull_and_tell = || {
        let waits = waits.clone();
        pull(&home.settings, &request("org/tiny"), &mut move |event| {
            if let Event::Waiting { file: "model.safetensors" } = event {
                waits.send(()).unwrap();
            }
        })
    };
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(pull_and_tell);
        let second = scope.spawn(pull_and_tell);
        (first.join().unwrap().unwrap(), second.join().unwrap().unwrap())
    });
    assert_eq!(first.path, second.path);
    for name in BROUGHT {
        assert_eq!(hub.asked_for(&format!("/org/tiny/resolve/{COMMIT}/{name}")).len(), 1, "{name}");
        assert_eq!(fs::read(first.path.join(name)).unwrap(), fixture(name));
    }
}

#[test]
fn a_gguf_file_is_brought_by_name_and_alone() {
    let hub = Hub::honest();
    let home = Home::new(&hub.url());
    let request = Request { repo: Repo::parse("org/tiny").unwrap(), gguf: Some("tiny-q8_0.gguf".to_owned()) };
    let pulled = pull(&home.settings, &request, &mut |_| {}).unwrap();
    assert_eq!(fs::read(&pulled.path).unwrap(), fixture("tiny-q8_0.gguf"));
    assert_eq!(pulled.files.len(), 1);
    for base in ["org/tiny", "org/tiny/tiny-q8_0.gguf"] {
        assert_eq!(resolve_in(&home.settings, home.folder.path(), base).unwrap(), pulled.path);
    }
}

#[test]
fn a_mirror_without_hashes_in_its_listing_is_asked_file_by_file() {
    let bare = format!(
        r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"config.json"}},{{"rfilename":"model.safetensors"}}]}}"#
    );
    let hub = Hub::start(move |asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", path) if path.starts_with("/api/") => Answer::new(200, bare.clone()),
        ("HEAD", WEIGHTS) => {
            // As the hub does: the store's own ETag is of no use, so it redirects with its own.
            let length = fixture("model.safetensors").len().to_string();
            Answer::new(302, "")
                .with("Location", "http://store.invalid/x")
                .with("X-Linked-Etag", &format!("\"{}\"", weights_hash()))
                .with("X-Linked-Size", &length)
        }
        ("HEAD", _) => {
            content(asked, "config.json").with("ETag", &format!("W/\"{}\"", hash_of("config.json")))
        }
        _ => honest(asked),
    });
    let home = Home::new(&hub.url());
    let pulled = home.pull().unwrap();
    assert_eq!(fs::read(pulled.path.join("model.safetensors")).unwrap(), fixture("model.safetensors"));
    assert!(home.blob("config.json").is_file());
}

#[test]
fn what_cannot_be_checked_is_not_brought() {
    let bare = format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"model.safetensors"}}]}}"#);
    let hub = Hub::start(move |asked| {
        if asked.path.starts_with("/api/") {
            Answer::new(200, bare.clone())
        } else {
            honest(asked).with("ETag", "\"d41d8cd98f00b204\"")
        }
    });
    let home = Home::new(&hub.url());
    let error = home.pull().unwrap_err();
    assert!(matches!(&error, Error::NoHash { file, .. } if file == "model.safetensors"), "{error}");
    assert!(home.tree().is_empty(), "{:?}", home.tree());
}

#[test]
fn a_revision_is_asked_for_and_noted_by_its_name() {
    let hub = Hub::start(|asked| match asked.path.as_str() {
        "/api/models/org/tiny/revision/refs%2Fpr%2F7?blobs=true" => {
            Answer::new(200, fixture("../listing.json"))
        }
        path if path == format!("/api/models/org/tiny/revision/{COMMIT}?blobs=true") => {
            Answer::new(200, fixture("../listing.json"))
        }
        _ => honest(asked),
    });
    let home = Home::new(&hub.url());
    pull(&home.settings, &request("org/tiny@refs/pr/7"), &mut |_| {}).unwrap();
    assert_eq!(fs::read_to_string(home.model().join("refs/refs/pr/7")).unwrap(), COMMIT);
    assert!(resolve_in(&home.settings, home.folder.path(), "org/tiny@refs/pr/7").is_ok());
    assert!(resolve_in(&home.settings, home.folder.path(), "org/tiny").is_err());
    // A commit needs no note.
    let tree = home.tree();
    pull(&home.settings, &request(&format!("org/tiny@{COMMIT}")), &mut |_| {}).unwrap();
    assert_eq!(home.tree(), tree);
}

#[test]
fn an_endpoint_may_have_a_path() {
    let hub = Hub::start(|asked| {
        let path = asked
            .path
            .strip_prefix("/mirror/of")
            .expect("every request goes below the endpoint's path")
            .to_owned();
        honest(&crate::support::Asked { path, ..asked.clone() })
    });
    let home = Home::new(&format!("{}/mirror/of/", hub.url()));
    assert_eq!(home.pull().unwrap().files.len(), 4);
}

#[cfg(target_os = "linux")] // which has a device that is always full
#[test]
fn a_full_disk_is_told_and_leaves_no_blob() {
    let hub = Hub::honest();
    let home = Home::new(&hub.url());
    fs::create_dir_all(home.model().join("blobs")).unwrap();
    std::os::unix::fs::symlink("/dev/full", home.partial("model.safetensors")).unwrap();
    let error = home.pull().unwrap_err();
    let length = fixture("model.safetensors").len() as u64;
    assert!(matches!(error, Error::DiskFull { missing: Some(missing), .. } if missing == length), "{error}");
    assert!(!home.blob("model.safetensors").exists());
}
