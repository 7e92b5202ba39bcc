//! What the other tests rely on.

use std::time::{Duration, Instant};

use chrono::DateTime;
use nix::sys::signal::Signal;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;

use crate::harness::{
    Answer, Certificate, OwnPostgres, OwnRedis, Received, Receiver, eventually, fresh_database, http, shared_kafka,
    shared_redis, topic_prefix,
};

#[tokio::test]
async fn every_test_has_a_database_of_its_own() {
    let (one, other) = (fresh_database().await, fresh_database().await);
    sqlx::query("CREATE TABLE mine (i int)").execute(&one.pool().await).await.unwrap();
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass('mine') IS NOT NULL").fetch_one(&other.pool().await).await.unwrap();
    assert!(!there);
}

#[tokio::test]
async fn a_cluster_of_ones_own_keeps_its_data_over_a_crash() {
    let mut cluster = OwnPostgres::start_new("harness-crash");
    let database = cluster.fresh_database().await;
    let pool = database.pool().await;
    sqlx::query("CREATE TABLE kept (i int)").execute(&pool).await.unwrap();
    cluster.crash();
    cluster.start();
    eventually(Duration::from_secs(5), || sqlx::query("SELECT * FROM kept").execute(&pool)).await;
}

#[tokio::test]
async fn the_shared_broker_takes_topics() {
    let brokers = shared_kafka().await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = format!("{}-events", topic_prefix());
    let wanted = [NewTopic::new(&topic, 3, TopicReplication::Fixed(1))];
    let made = admin.create_topics(&wanted, &AdminOptions::new()).await.unwrap();
    assert_eq!(made, [Ok(topic)]);
}

/// A client of its own for each call: every call is a connection.
async fn ask(url: String) -> reqwest::Result<reqwest::Response> {
    http::client().post(url).body("{\"a\":1}").send().await
}

#[tokio::test]
async fn a_receiver_follows_its_script_by_path_and_remembers_what_came() {
    let receiver = Receiver::start().await;
    receiver.script("/a", [Answer::status(500), Answer::status(503).retry_after(7), Answer::status(410).body("gone")]);
    receiver.answer_by("/b", |request: &Received| Answer::status(if request.json()["a"] == 1 { 201 } else { 400 }));
    let client = http::client();
    let mut answers = Vec::new();
    for path in ["/a", "/a", "/b", "/a", "/a", "/other"] {
        let response = client.post(receiver.url(path)).header("x-own", path).body("{\"a\":1}").send().await.unwrap();
        answers.push((response.status().as_u16(), response.headers().get("retry-after").cloned()));
    }
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [500, 503, 201, 410, 410, 200]);
    assert_eq!(answers[1].1.as_ref().unwrap(), "7");
    assert_eq!((receiver.count("/a"), receiver.count("/b"), receiver.requests().len()), (4, 1, 6));
    assert_eq!(receiver.connections(), 1, "it is kept open");
    let seen = &receiver.until("/b", 1, Duration::from_secs(1)).await[0];
    assert_eq!((seen.method.as_str(), seen.header("x-own"), seen.connection), ("POST", "/b", 1));

    let at = DateTime::from_timestamp(784_111_777, 0).unwrap();
    receiver.script("/a", [Answer::status(429).retry_at(at), Answer::redirect("http://10.0.0.1/x")]);
    let response = ask(receiver.url("/a")).await.unwrap();
    assert_eq!(response.headers()["retry-after"], "Sun, 06 Nov 1994 08:49:37 GMT");
    let stays = http::client_with(|builder| builder.redirect(Policy::none()));
    let moved = stays.post(receiver.url("/a")).send().await.unwrap();
    assert_eq!(
        (moved.status().as_u16(), &moved.headers()["location"]),
        (307, &HeaderValue::from_static("http://10.0.0.1/x"))
    );
    assert!(receiver.requests().is_sorted_by_key(|request| request.at));
}

#[tokio::test]
async fn a_receiver_hangs_resets_drips_and_never_ends() {
    let receiver = Receiver::start().await;
    receiver.script("/hang", [Answer::hang()]);
    receiver.script("/reset", [Answer::reset()]);
    receiver.script("/drip", [Answer::status(200).drip("slowly", Duration::from_millis(20))]);
    receiver.script("/late", [Answer::status(200).after(Duration::from_millis(200))]);
    receiver.script("/endless", [Answer::status(200).endless()]);

    let hanging = [tokio::spawn(ask(receiver.url("/hang"))), tokio::spawn(ask(receiver.url("/hang")))];
    receiver.until("/hang", 2, Duration::from_secs(5)).await;
    assert!(hanging.iter().all(|call| !call.is_finished()));
    assert_eq!(receiver.most_at_once("/hang"), 2);
    hanging.iter().for_each(tokio::task::JoinHandle::abort);

    let error = ask(receiver.url("/reset")).await.unwrap_err();
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    let begun = Instant::now();
    assert_eq!(ask(receiver.url("/drip")).await.unwrap().text().await.unwrap(), "slowly");
    assert!(begun.elapsed() >= Duration::from_millis(120));
    let begun = Instant::now();
    assert_eq!(ask(receiver.url("/late")).await.unwrap().status(), 200);
    assert!(begun.elapsed() >= Duration::from_millis(200));

    let mut endless = ask(receiver.url("/endless")).await.unwrap();
    let mut read = 0;
    while read < 1 << 20 {
        read += endless.chunk().await.unwrap().expect("there is more").len();
    }
    drop(endless);
    assert!(receiver.endless_bytes() >= 1 << 20);
}

#[tokio::test]
async fn a_receiver_speaks_http_2_and_tls_and_is_believed_by_its_name_alone() {
    let plain = Receiver::start().await;
    let h2c = http::client_with(reqwest::ClientBuilder::http2_prior_knowledge);
    let answers = futures::future::join_all((0..20).map(|_| h2c.post(plain.url("/")).send())).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status() == 200));
    assert_eq!((plain.count("/"), plain.connections()), (20, 1), "all share a connection");
    assert_eq!(plain.requests()[0].version, reqwest::Version::HTTP_2);

    for (certificate, believed) in [(Certificate::Right, true), (Certificate::WrongName, false)] {
        let receiver = Receiver::start_tls(certificate).await;
        let authority = reqwest::Certificate::from_pem(&std::fs::read(receiver.ca_file()).unwrap()).unwrap();
        let client = http::client_with(|builder| builder.tls_certs_only([authority]));
        let answer = client.post(receiver.url("/")).send().await;
        assert_eq!(answer.is_ok(), believed, "{certificate:?}: {answer:?}");
        assert!(ask(receiver.url("/")).await.is_err(), "who does not know the authority does not believe it");
        let named = client.post(format!("https://localhost:{}/", receiver.port())).send().await;
        assert_eq!(named.is_ok(), believed);
        let seen = receiver.requests_to("/");
        assert_eq!(seen.len(), if believed { 2 } else { 0 });
        assert!(seen.iter().all(|request| request.version == reqwest::Version::HTTP_2), "by ALPN");
    }
}

#[tokio::test]
async fn a_redis_of_ones_own_keeps_what_it_confirmed_over_a_kill() {
    let mut redis = tokio::task::spawn_blocking(|| OwnRedis::start_new("harness")).await.unwrap();
    assert_eq!(redis.ask(&["SET", "kept", "a value"]).as_deref(), Some("+OK"));
    redis.crash();
    assert_eq!(redis.ask(&["GET", "kept"]), None, "nobody is there");
    redis.start();
    assert_eq!(redis.ask(&["GET", "kept"]).as_deref(), Some("a value"));
    redis.stop();
    redis.start();
    assert_eq!(redis.ask(&["GET", "kept"]).as_deref(), Some("a value"));
    redis.signal(Signal::SIGSTOP);
    assert_eq!(redis.ask(&["PING"]), None, "it is frozen");
    redis.signal(Signal::SIGCONT);
    assert_eq!(redis.ask(&["PING"]).as_deref(), Some("+PONG"));

    let mut forgetful = tokio::task::spawn_blocking(|| OwnRedis::start_with("harness-forgets", &[])).await.unwrap();
    assert!(forgetful.url().starts_with("redis://127.0.0.1:"));
    assert_eq!(forgetful.ask(&["SET", "kept", "a value"]).as_deref(), Some("+OK"));
    forgetful.crash();
    forgetful.start();
    assert_eq!(forgetful.ask(&["GET", "kept"]), None);
}

#[tokio::test]
async fn every_test_has_a_database_of_the_shared_redis() {
    let (one, other) = (shared_redis().await, shared_redis().await);
    let server = |url: &str| url.rsplit_once('/').unwrap().0.to_owned();
    assert!(one != other && server(&one) == server(&other), "{one} {other}");
}
