//! Who may have what, and what never happens: a token at a stranger's, a file outside the cache, a request when offline.

use std::fs;

use crate::support::{Answer, COMMIT, Home, Hub, WEIGHTS, content, fixture, honest, request};
use luthier_hub::{Error, Token, pull, resolve_in};

fn with_token(mut home: Home) -> Home {
    home.settings.token = Token::new("hf_secret", "HF_TOKEN").unwrap();
    home
}

#[test]
fn the_token_goes_to_the_endpoint_and_to_no_other_host() {
    let store = Hub::start(|asked| content(asked, "model.safetensors"));
    let address = format!("{}/store/0123?X-Signature=1", store.url());
    let hub = Hub::start(move |asked| {
        if asked.path == WEIGHTS { Answer::new(302, "").with("Location", &address) } else { honest(asked) }
    });
    let home = with_token(Home::new(&hub.url()));
    // The range must survive the redirect as well.
    fs::create_dir_all(home.model().join("blobs")).unwrap();
    fs::write(home.partial("model.safetensors"), &fixture("model.safetensors")[..1_000]).unwrap();
    let pulled = home.pull().unwrap();
    assert_eq!(fs::read(pulled.path.join("model.safetensors")).unwrap(), fixture("model.safetensors"));
    assert!(hub.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer hf_secret")));
    let asked = store.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/store/0123?X-Signature=1");
    assert_eq!(asked[0].header("range"), Some("bytes=1000-"));
    assert!(!format!("{:?}", asked[0]).contains("secret"), "{:?}", asked[0]);
}

#[test]
fn a_renamed_model_is_followed_at_the_endpoint_with_the_token() {
    let hub = Hub::start(|asked| match asked.path.as_str() {
        "/api/models/old/tiny/revision/main?blobs=true" => {
            Answer::new(307, "").with("Location", "/api/models/org/tiny/revision/main?blobs=true")
        }
        path => match path.strip_prefix("/old/tiny/") {
            Some(rest) => Answer::new(307, "").with("Location", &format!("/org/tiny/{rest}")),
            None => honest(asked),
        },
    });
    let home = with_token(Home::new(&hub.url()));
    let pulled = pull(&home.settings, &request("old/tiny"), &mut |_| {}).unwrap();
    assert_eq!(pulled.files.len(), 4);
    assert!(hub.asked().iter().all(|asked| asked.header("authorization").is_some()));
    assert!(resolve_in(&home.settings, home.folder.path(), "old/tiny").is_ok());
}

#[test]
fn a_redirect_that_goes_round_or_elsewhere_than_http_is_refused() {
    for location in ["/round", "ftp://store.invalid/x", "file:///etc/passwd", ""] {
        let hub = Hub::start(move |_| Answer::new(302, "").with("Location", location));
        let error = Home::new(&hub.url()).pull().unwrap_err();
        assert!(matches!(error, Error::BadRedirect { .. }), "{location}: {error}");
        assert!(hub.asked().len() <= 11);
    }
}

#[test]
fn an_address_of_the_store_that_ran_out_is_asked_for_anew() {
    let store = Hub::start(|asked| {
        if asked.before == 0 { Answer::new(403, "expired") } else { content(asked, "model.safetensors") }
    });
    let address = format!("{}/x", store.url());
    let hub = Hub::start(move |asked| {
        if asked.path == WEIGHTS { Answer::new(302, "").with("Location", &address) } else { honest(asked) }
    });
    Home::new(&hub.url()).pull().unwrap();
    assert_eq!(hub.asked_for(WEIGHTS).len(), 2);
}

#[test]
fn refused_without_a_token_says_what_to_check() {
    let hub = Hub::start(|asked| {
        if asked.path.starts_with("/api/models?search=tiny&") {
            return Answer::new(200, r#"[{"id": "other/thing"}, {"id": "orga/tiny"}, {"id": "../../x"}]"#);
        }
        Answer::new(401, "").with("X-Error-Message", "Invalid username or password.")
    });
    let error = Home::new(&hub.url()).pull().unwrap_err();
    assert!(
        matches!(&error, Error::Unauthorized { token_source: None, nearest: Some(nearest), .. } if nearest == "orga/tiny"),
        "{error}"
    );
    let help = error.help().unwrap();
    assert!(help.contains("`orga/tiny`") && help.contains("HF_TOKEN"), "{help}");
}

#[test]
fn a_token_that_is_not_accepted_is_named_by_its_source() {
    let hub = Hub::start(|_| Answer::new(401, ""));
    let home = with_token(Home::new(&hub.url()));
    let error = home.pull().unwrap_err();
    assert!(
        matches!(&error, Error::Unauthorized { token_source: Some(source), .. } if source == "HF_TOKEN"),
        "{error}"
    );
    assert!(!format!("{error} {error:?} {:?}", error.help()).contains("secret"));
    assert_eq!(hub.asked()[0].header("authorization"), Some("Bearer hf_secret"));
}

#[test]
fn a_gated_model_names_the_page_to_ask_on() {
    // The listing of a gated model is open, its files are not.
    for status in [401, 403] {
        let hub = Hub::start(move |asked| {
            if asked.path.starts_with("/api/") {
                return honest(asked);
            }
            Answer::new(status, "")
                .with("X-Error-Code", "GatedRepo")
                .with("X-Error-Message", "Access to model org/tiny is restricted.")
        });
        let home = Home::new(&hub.url());
        let error = home.pull().unwrap_err();
        assert!(matches!(error, Error::Gated { token_source: None, .. }), "{error}");
        assert!(error.to_string().contains("restricted"), "{error}");
        assert!(
            error.help().is_some_and(|help| help.contains(&format!("{}/org/tiny", hub.url()))),
            "{:?}",
            error.help()
        );
        let error = with_token(home).pull().unwrap_err();
        assert!(
            error.help().is_some_and(|help| help.contains("the token from HF_TOKEN")),
            "{:?}",
            error.help()
        );
    }
}

#[test]
fn a_model_that_is_not_there_suggests_the_nearest() {
    let hub = Hub::start(|asked| match asked.path.as_str() {
        "/api/models?search=tinny&limit=100" => Answer::new(200, "[]"),
        "/api/models?author=org&limit=100" => Answer::new(200, r#"[{"id": "org/huge"}, {"id": "org/tiny"}]"#),
        _ => Answer::new(404, "").with("X-Error-Code", "RepoNotFound"),
    });
    let home = Home::new(&hub.url());
    let error = pull(&home.settings, &request("org/tinny"), &mut |_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::NoRepo { nearest: Some(nearest), .. } if nearest == "org/tiny"),
        "{error}"
    );
    assert!(error.help().is_some_and(|help| help.contains("did you mean `org/tiny`")));
    assert!(error.is_input());
    // A search that fails leaves the error as it is.
    let error = pull(&home.settings, &request("none/such"), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoRepo { nearest: None, .. }), "{error}");
}

#[test]
fn a_revision_that_is_not_there_suggests_the_nearest() {
    let hub = Hub::start(|asked| match asked.path.as_str() {
        "/api/models/org/tiny/refs" => Answer::new(
            200,
            r#"{"branches": [{"name": "main"}], "tags": [{"name": "v1.0"}], "converts": []}"#,
        ),
        _ => Answer::new(404, "").with("X-Error-Code", "RevisionNotFound"),
    });
    let home = Home::new(&hub.url());
    let error = pull(&home.settings, &request("org/tiny@v1.1"), &mut |_| {}).unwrap_err();
    assert!(
        matches!(&error, Error::NoRevision { nearest: Some(nearest), .. } if nearest == "v1.0"),
        "{error}"
    );
}

#[test]
fn a_commit_must_be_the_one_that_was_asked_for() {
    let asked_for = "a".repeat(40);
    let hub = Hub::start(|_| Answer::new(200, fixture("../listing.json")));
    let home = Home::new(&hub.url());
    let error = pull(&home.settings, &request(&format!("org/tiny@{asked_for}")), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("asked for the commit"), "{error}");
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn names_that_leave_the_folder_condemn_the_listing() {
    let names = [
        "../config.json",
        "a/../../../x.json",
        "/etc/x.json",
        "C:/x.json",
        "a\\\\b.json",
        "x\\u0000.json",
        "..",
        "",
    ];
    for name in names {
        let body = format!(
            r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":"model.safetensors","size":1,"blobId":"{}"}},{{"rfilename":"{name}"}}]}}"#,
            "0".repeat(40)
        );
        let hub = Hub::start(move |_| Answer::new(200, body.clone()));
        let home = Home::new(&hub.url());
        let error = home.pull().unwrap_err();
        assert!(matches!(error, Error::UnsafeName { .. }), "{name}: {error}");
        assert_eq!(hub.asked().len(), 1, "{name}");
        assert!(home.tree().is_empty(), "{name}: {:?}", home.tree());
    }
}

#[test]
fn commits_and_hashes_that_leave_the_folder_are_refused() {
    let zeros = "0".repeat(40);
    for (commit, hash) in [
        ("../../../../../../../../../../../../../etc", zeros.as_str()),
        (COMMIT, "../../../../../../../../../../../../../x"),
    ] {
        let body = format!(
            r#"{{"sha":"{commit}","siblings":[{{"rfilename":"model.safetensors","size":1,"blobId":"{hash}","lfs":{{"sha256":"{hash}"}}}}]}}"#
        );
        let hub = Hub::start(move |asked| {
            if asked.path.starts_with("/api/") {
                Answer::new(200, body.clone())
            } else {
                Answer::new(200, "x")
            }
        });
        let home = Home::new(&hub.url());
        let error = home.pull().unwrap_err();
        assert!(matches!(error, Error::BadReply { .. } | Error::NoHash { .. }), "{error}");
        assert!(home.tree().is_empty(), "{:?}", home.tree());
    }
}

#[test]
fn a_page_that_is_not_a_listing_is_named() {
    let hub = Hub::start(|_| Answer::new(200, "<html>please sign in to the wireless network</html>"));
    let error = Home::new(&hub.url()).pull().unwrap_err();
    assert!(matches!(error, Error::BadReply { .. }), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("HF_ENDPOINT")));
}

#[test]
fn offline_uses_the_cache_and_never_the_network() {
    let hub = Hub::honest();
    let mut home = Home::new(&hub.url());
    home.settings.offline = true;
    let error = home.pull().unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("HF_HUB_OFFLINE")));
    assert!(hub.asked().is_empty());
    home.settings.offline = false;
    let pulled = home.pull().unwrap();
    let before = hub.asked().len();
    home.settings.offline = true;
    assert_eq!(home.pull().unwrap().path, pulled.path);
    assert_eq!(hub.asked().len(), before);
}
