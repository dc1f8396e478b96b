//! Whatever messages come, in whatever order: no panic, no half message, no session that isn't counted.

use std::time::Duration;

use holdfast_protocol::message::{Attach, AttachMode, Data, Record, RecordKind, Refused};
use holdfast_protocol::{Epoch, Message, Seq, decode};
use proptest::prelude::*;

use super::groups::{frames_of, group_settings, of_group};
use super::world::*;
use crate::settings::Settings;

#[derive(Debug, Clone)]
enum Step {
    Say(Vec<u8>),
    Pass(u64),
    Cut,
    LinkUp,
    Finish(bool),
}

fn frame() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "quiet",
        "close",
        "tick 5",
        "cancel",
        "send 3 400",
        "send 1 5000",
        "work",
        "state",
        "panic",
        "join 5",
        "",
    ])
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let ids = (1_u8..3, 0_u64..4, 0_u64..8);
    (ids, 0_u8..17, frame(), any::<(bool, bool)>(), 0_u64..2000).prop_map(
        |((number, epoch, seq), kind, frame, (flag, of_a_group), bytes)| {
            let message = match kind {
                0..5 => data(number, epoch, seq, frame),
                5 => attach(number, epoch, AttachMode::Fresh),
                6 => attach_state(number, epoch, bytes),
                7 => attach(number, epoch, AttachMode::Resume),
                8 => start(number, epoch),
                9 => freeze(number, epoch, bytes),
                10 => thaw(number, epoch, epoch + seq, seq, seq),
                11 => ack(number, epoch, seq),
                12 => close(number, epoch, seq, flag),
                13 => credit(number, epoch, bytes),
                14 => chunk(number, epoch, bytes, seq, frame.as_bytes()),
                15 => record(number, epoch, seq),
                _ => Message::Refused(Refused {
                    subject: subject(number),
                    epoch: Epoch(epoch),
                    retry: flag,
                    reason: "full",
                }),
            };
            let message = if of_a_group { grouped(message) } else { message };
            bytes_of(&if flag { again(message) } else { message })
        },
    )
}

/// The same about a group, one of whose members it comes from, if it can be.
fn grouped(message: Message<'_>) -> Message<'_> {
    match message {
        Message::Data(data) => {
            let text = std::str::from_utf8(data.frame).unwrap();
            let who = 1 + data.seq.0 % 3;
            let what = if data.seq.0 % 2 == 0 { text } else { "join state" };
            let frame = frames_of(&format!("{who} {what}")).remove(0).leak();
            of_group(Message::Data(Data { frame, ..data }))
        }
        Message::Close(_) | Message::Record(_) | Message::Refused(_) => message,
        other => of_group(other),
    }
}

fn attach_state(number: u8, epoch: u64, state_total_bytes: u64) -> Message<'static> {
    let Message::Attach(base) = attach(number, epoch, AttachMode::State) else { unreachable!() };
    Message::Attach(Attach { state_total_bytes, format: "1", ..base })
}

fn record(number: u8, epoch: u64, seq: u64) -> Message<'static> {
    Message::Record(Record {
        subject: subject(number),
        epoch: Epoch(epoch),
        seq: Seq(seq),
        after_client_seq: Seq::NONE,
        kind: RecordKind::Input,
        member: None,
        again: false,
        bytes: b"",
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => message().prop_map(Step::Say),
        2 => (0_u64..200).prop_map(Step::Pass),
        1 => Just(Step::Cut),
        1 => Just(Step::LinkUp),
        1 => any::<bool>().prop_map(Step::Finish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_messages_panics_or_leaks_a_session(steps in prop::collection::vec(step(), 1..60)) {
        let settings = Settings { client_window_bytes: WINDOW, ..group_settings() };
        let mut world = World::with(settings, Puppets::default());
        let mut generation = 1;
        world.begin(1);
        world.say_all(&[of_group(attach(1, 1, AttachMode::Fresh)), of_group(start(1, 1))]);
        for step in steps {
            match step {
                Step::Say(bytes) => {
                    let (message, _) = decode(&bytes, usize::MAX).unwrap().unwrap();
                    world.say(message);
                }
                Step::Pass(ms) => drop(world.pass(Duration::from_millis(ms))),
                Step::Cut => world.cut(),
                Step::LinkUp => {
                    generation += 1;
                    world.link_up(generation);
                }
                Step::Finish(panics) => {
                    if let Some(job) = world.jobs.pop() {
                        world.peer.finished(job, (!panics).then(Vec::new), world.now);
                    }
                }
            }
            prop_assert_eq!(world.population.get() as usize, world.peer.attachments());
        }
        world.cut();
        world.pass(Duration::from_secs(200));
        prop_assert_eq!(world.population.get(), 0, "orphans are given up");
        prop_assert_eq!(world.peer.next_due(), None, "a timer outlives its session");
    }
}
