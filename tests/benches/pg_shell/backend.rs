//! `shell.run_command`, confined, against PL/sh, which is not, in one backend.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

const PEER: &str = "
    create extension if not exists plsh;
    create or replace function public.run_true() returns text language plsh as $$#!/bin/sh
true
$$";

/// Times of `true` in either, in turns; `None` where PL/sh is not installed.
pub async fn compare(client: &Client, count: usize) -> Option<(Vec<Duration>, Vec<Duration>)> {
    client.batch_execute(PEER).await.ok()?;
    let ours = "select exit_code from shell.run_command('/tmp', '{}', 'true')";
    let ours = client.prepare(ours).await.expect("run_command");
    let peer = client
        .prepare("select public.run_true()")
        .await
        .expect("PL/sh");
    let (mut times, mut peer_times) = (Vec::new(), Vec::new());
    for turn in 0..count + 10 {
        let began = Instant::now();
        client.query_one(&ours, &[]).await.expect("it runs");
        let between = Instant::now();
        client.query_one(&peer, &[]).await.expect("it runs");
        if turn >= 10 {
            times.push(between - began);
            peer_times.push(between.elapsed());
        }
    }
    Some((times, peer_times))
}
