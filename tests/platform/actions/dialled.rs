//! Addresses are judged when they are dialled.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cornjacket::actions::client::{Lookup, client};
use cornjacket::actions::guard::Guard;

use super::{SOON, World};
use crate::harness::{Answer, Receiver};

const ONCE: &str = "retry: {maxAttempts: 1}";

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_by_name_and_by_number() {
    let world = World::new("private").await;
    let mut act = world.launch("");
    act.arguments.retain(|argument| argument != "--webhook-allow" && argument != "127.0.0.0/8");
    let _act = act.ready().await;
    let port = world.receiver.port();
    let urls = [
        ("number", format!("http://127.0.0.1:{port}/hook")),
        ("name", format!("http://localhost:{port}/hook")),
        ("v6", format!("http://[::1]:{port}/hook")),
        ("mapped", format!("http://[::ffff:127.0.0.1]:{port}/hook")),
        ("short", format!("http://127.1:{port}/hook")),
        ("decimal", format!("http://2130706433:{port}/hook")),
        ("metadata", "http://169.254.169.254/latest".to_owned()),
        ("private", "http://10.0.0.1/".to_owned()),
    ];
    for (name, url) in &urls {
        world.declare_at(name, url, ONCE).await;
    }
    world.send("a", 1).await;
    for (name, _) in &urls {
        world.until(name, "failed", 1).await;
        let (status, error) = world.attempts(name).await.remove(0);
        let error = error.unwrap();
        assert!(
            status.is_none() && error.contains("is not dialled") && error.contains("--webhook-allow"),
            "{name}: {error}"
        );
    }
    assert!(world.receiver.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_where_it_is_allowed_and_never_to_a_private_address() {
    let world = World::new("redirects").await;
    let other = Receiver::start().await;
    // 127.0.0.1 may be dialled here, and nothing else that is private.
    let mut act = world.launch("").env("CORNJACKET_WEBHOOK_REDIRECTS", "2");
    let allowed = act.arguments.iter().position(|argument| argument == "127.0.0.0/8").unwrap();
    act.arguments[allowed] = "127.0.0.1".to_owned();
    let _act = act.ready().await;
    world.receiver.script("/moved", [Answer::redirect(&other.url("/new"))]);
    world.receiver.script("/within", [Answer::redirect("/here")]);
    world.receiver.script("/inside", [Answer::redirect(&format!("http://127.0.0.2:{}/private", other.port()))]);
    world.receiver.script("/circle", [Answer::redirect("/circle")]);
    world.receiver.script("/file", [Answer::redirect("file:///etc/passwd")]);
    let secret = "headers: [{name: Authorization, secretRef: {name: hooks, key: token}}], retry: {maxAttempts: 1}";
    for name in ["moved", "within", "inside", "circle", "file"] {
        world.declare(name, &format!("/{name}"), secret).await;
    }
    world.send("a", 1).await;
    world.until("moved", "delivered", 1).await;
    let moved = other.requests_to("/new").remove(0);
    assert_eq!(
        (moved.method.as_str(), moved.header("authorization")),
        ("POST", ""),
        "secrets stay with their endpoint"
    );
    assert_eq!(moved.body, world.receiver.requests_to("/moved")[0].body);
    world.until("within", "delivered", 1).await;
    assert_eq!(world.receiver.requests_to("/here")[0].header("authorization"), "Bearer xyzzy");
    for (name, why) in [("inside", "is not dialled"), ("circle", "307"), ("file", "neither http nor https")] {
        world.until(name, "failed", 1).await;
        let (status, error) = world.attempts(name).await.remove(0);
        assert!(format!("{status:?} {error:?}").contains(why), "{name}: {status:?} {error:?}");
    }
    assert_eq!((world.receiver.count("/circle"), other.requests().len()), (3, 1));
}

/// Both addresses are of this machine; one of them is allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_address_changes_is_judged_by_the_address_that_is_dialled() {
    let receiver = Receiver::start().await;
    let (port, changed) = (receiver.port(), Arc::new(AtomicBool::new(false)));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let lookup: Lookup = {
        let (changed, asked) = (changed.clone(), asked.clone());
        Arc::new(move |name| {
            asked.lock().unwrap().push(name);
            let address = if changed.load(Ordering::SeqCst) { "127.0.0.2" } else { "127.0.0.1" };
            Box::pin(async move { Ok(vec![SocketAddr::new(address.parse().unwrap(), 0)]) })
        })
    };
    let guard = Arc::new(Guard::new(vec!["127.0.0.1/32".parse().unwrap()]));
    let client = client(guard, lookup, Vec::new()).unwrap();
    let url = format!("http://endpoint.example:{port}/hook");
    // A connection that is kept would not be dialled again.
    let send = || client.post(&url).header("connection", "close").body("x").send();
    assert_eq!(send().await.unwrap().status(), 200);
    changed.store(true, Ordering::SeqCst);
    let error = send().await.unwrap_err();
    let mut told = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        told += &error.to_string();
        cause = error.source();
    }
    assert!(told.contains("127.0.0.2 is not dialled"), "{told}");
    changed.store(false, Ordering::SeqCst);
    assert_eq!(send().await.unwrap().status(), 200);
    assert_eq!(receiver.until("/hook", 2, SOON).await.len(), 2);
    assert_eq!(*asked.lock().unwrap(), ["endpoint.example"; 3]);
}
