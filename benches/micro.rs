//! The steps of the hot path alone: codec, framing, placement. Ratios between commits, not absolute times, are the point.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use holdfast::framing::RawFraming;
use holdfast::routing::pick::{Candidate, Logic, Rules, pick};
use holdfast::routing::table::{Policy, Prefer};
use holdfast::routing::{Backend, BackendAddress, BackendId};
use holdfast_protocol::message::{Data, Message, Subject};
use holdfast_protocol::{Epoch, Seq, SessionId, TraceContext, codec, decode};

const FRAME_BYTES: usize = 128;
const FRAMES: u64 = 64;

fn data(frame: &[u8]) -> Message<'_> {
    Message::Data(Data {
        subject: Subject::Session(SessionId([7; 16])),
        epoch: Epoch(1),
        seq: Seq(1),
        ack: Seq(1),
        record: Seq::NONE,
        again: false,
        trace: TraceContext::default(),
        frame,
    })
}

fn link(criterion: &mut Criterion) {
    let frame = [1u8; FRAME_BYTES];
    let mut batch = Vec::new();
    (0..FRAMES).for_each(|_| codec::encode(&data(&frame), &mut batch));
    let mut group = criterion.benchmark_group("link");
    group.throughput(Throughput::Elements(FRAMES));
    group.bench_function("encode 64 DATA", |bencher| {
        let mut out = Vec::with_capacity(batch.len());
        bencher.iter(|| {
            out.clear();
            (0..FRAMES).for_each(|_| codec::encode(black_box(&data(&frame)), &mut out));
            out.len()
        });
    });
    group.bench_function("decode 64 DATA", |bencher| {
        bencher.iter(|| {
            let (mut at, mut bytes) = (0, 0);
            while let Ok(Some((Message::Data(data), length))) = decode(black_box(&batch[at..]), batch.len()) {
                bytes += data.frame.len();
                at += length;
            }
            bytes
        });
    });
    group.finish();
}

fn framing(criterion: &mut Criterion) {
    let specs = [
        ("length", r#"{"kind": "length", "width": 4}"#),
        ("varint", r#"{"kind": "varint"}"#),
        ("lines", r#"{"kind": "lines"}"#),
    ];
    let mut group = criterion.benchmark_group("framing");
    group.throughput(Throughput::Elements(FRAMES));
    for (name, spec) in specs {
        let raw: RawFraming = serde_json::from_str(spec).expect("a framing");
        let framing = raw.check().expect("a framing that can be used");
        let mut bytes = Vec::new();
        (0..FRAMES).for_each(|_| framing.write(&[b'x'; FRAME_BYTES], &mut bytes).expect("a frame"));
        group.bench_function(format!("cut 64 {name} frames"), |bencher| {
            bencher.iter(|| {
                let (mut at, mut frames) = (0, 0);
                while let Ok(Some(cut)) = framing.cut(black_box(&bytes[at..])) {
                    at += cut.consumed;
                    frames += 1;
                }
                frames
            });
        });
    }
    group.finish();
}

fn placement(criterion: &mut Criterion) {
    let backend = |number: u32| {
        Arc::new(Backend {
            id: BackendId { service: "arena".into(), name: number.to_string().into() },
            address: BackendAddress::Tcp("127.0.0.1:7100".into()),
            version: if number.is_multiple_of(2) { "1.4".into() } else { "1.5".into() },
            weight: 100,
            zone: None,
            capacity: None,
        })
    };
    let backends: Vec<_> = (0..100).map(backend).collect();
    let shares = BTreeMap::from([(Arc::from("1.4"), 95), (Arc::from("1.5"), 5)]);
    let candidate = |backend| Candidate {
        backend,
        weight: 100_000,
        load: 10,
        report: None,
        local: false,
        same_zone: false,
        logic: Logic::Unknown,
        fit: true,
    };
    let rules =
        Rules { shares: &shares, prefer: Prefer::None, policy: Policy::LeastSessions, panic_percent: 50 };
    let candidates: Vec<_> = backends.iter().map(candidate).collect();
    criterion.bench_function("pick among 100 backends", |bencher| {
        let mut number = 0u64;
        bencher.iter(|| {
            number += 1;
            pick(number.wrapping_mul(0x9e37_79b9_7f4a_7c15), &rules, black_box(&candidates), &mut [])
        });
    });
}

criterion_group!(benches, link, framing, placement);
criterion_main!(benches);
