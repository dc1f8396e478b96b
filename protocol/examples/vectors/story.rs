//! SPEC.md's worked example: one session, one handoff from backend A to backend B.

use std::fmt::Write;

use holdfast_protocol::message::*;
use holdfast_protocol::{Epoch, InstanceId, Seq, encode};

use crate::layout::pieces;
use crate::samples::{SESSION, TRACE, attach, hello, welcome};
use crate::view::view;

const SUBJECT: Subject = Subject::Session(SESSION);

/// The section of SPEC.md with the dumps.
pub fn markdown() -> String {
    let mut text = String::new();
    let acts: [fn(&mut Story); 4] = [opening, play, handoff, end];
    let mut story = Story { text: &mut text, step: 0 };
    acts.iter().for_each(|act| act(&mut story));
    text
}

struct Story<'a> {
    text: &'a mut String,
    step: usize,
}

impl Story<'_> {
    fn say(&mut self, way: &str, why: &str, message: &Message<'_>) {
        self.step += 1;
        let mut bytes = Vec::new();
        encode(message, &mut bytes);
        let _ = writeln!(self.text, "{}. **{way}**: {why}\n", self.step);
        let _ = writeln!(self.text, "```dump\n{way} {}", view(message));
        for piece in pieces(&crate::tables::layout(message.message_type()), &bytes) {
            for (index, row) in piece.bytes.chunks(16).enumerate() {
                let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
                let label = if index == 0 { piece.label.as_str() } else { "" };
                let line = format!("{:04x}  {:<48} {label}", piece.offset + index * 16, hex.join(" "));
                let _ = writeln!(self.text, "{}", line.trim_end());
            }
        }
        self.text.push_str("```\n\n");
    }

    fn client(&mut self, way: &str, why: &str, epoch: u64, seq: u64, ack: u64, again: bool) {
        let frame = [b"", b"move 1".as_slice(), b"move 2", b"move 3"][seq as usize];
        self.data(way, why, epoch, (seq, ack), again, frame);
    }

    fn server(&mut self, way: &str, why: &str, epoch: u64, seq: u64) {
        let frame = [b"", b"done 1".as_slice(), b"done 2", b"done 3"][seq as usize];
        self.data(way, why, epoch, (seq, seq), false, frame);
    }

    fn data(&mut self, way: &str, why: &str, epoch: u64, seqs: (u64, u64), again: bool, frame: &[u8]) {
        let (seq, ack, record) = (Seq(seqs.0), Seq(seqs.1), Seq::NONE);
        let (subject, epoch, trace) = (Subject::Session(SESSION), Epoch(epoch), TRACE);
        self.say(way, why, &Message::Data(Data { subject, epoch, seq, ack, record, again, trace, frame }));
    }

    fn ack(&mut self, way: &str, why: &str, epoch: u64, data: u64) {
        let ack = Ack { subject: SUBJECT, epoch: Epoch(epoch), data: Seq(data), record: Seq::NONE };
        self.say(way, why, &Message::Ack(ack));
    }
}

fn opening(story: &mut Story<'_>) {
    let hello = Hello { capabilities: 0, proof: &[], ..hello() };
    story.say("proxy -> A", "the link opens.", &Message::Hello(hello.clone()));
    let of_a = welcome(false, Attachments::default());
    story.say("A -> proxy", "version 1, no attachments: a new process.", &Message::Welcome(of_a.clone()));
    story.say("proxy -> A", "a player has connected; mode `fresh`, epoch 1.", &Message::Attach(attach()));
    let (epoch, seq) = (Epoch(1), Seq::NONE);
    let attached = Attached { subject: SUBJECT, epoch, client_seq: seq, server_seq: seq };
    story.say("A -> proxy", "the session is loaded, and inert.", &Message::Attached(attached));
    let start = Start { subject: SUBJECT, epoch };
    story.say("proxy -> A", "nothing to repeat, so live input begins.", &Message::Start(start));
}

fn play(story: &mut Story<'_>) {
    story.client("proxy -> A", "the player's first frame.", 1, 1, 0, false);
    story.server("A -> proxy", "the reply; it also says that client frame 1 has been processed.", 1, 1);
    story.ack("proxy -> A", "server frame 1 was handed to the client's socket.", 1, 1);
    story.client(
        "proxy -> A",
        "the second frame. A has not begun it when the FREEZE arrives.",
        1,
        2,
        1,
        false,
    );
}

fn handoff(story: &mut Story<'_>) {
    let hello = Hello { capabilities: 0, proof: &[], generation: 1, ..hello() };
    story.say("proxy -> B", "A is to be drained; a link to B opens.", &Message::Hello(hello));
    let instance = InstanceId(*b"game-instance-2!");
    let of_b = Welcome { instance, generation: 1, ..welcome(false, Attachments::default()) };
    story.say("B -> proxy", "B reads the format that A writes.", &Message::Welcome(of_b));
    let (epoch, client_seq) = (Epoch(1), Seq(2));
    let freeze = Freeze { subject: SUBJECT, epoch, client_seq, credit_bytes: 8192, trace: TRACE };
    story.say(
        "proxy -> A",
        "stop; N is 2. Frames from the player now wait in the proxy.",
        &Message::Freeze(freeze),
    );
    let mut state = State {
        subject: SUBJECT,
        epoch,
        is_final: true,
        total_bytes: 7,
        offset_bytes: 0,
        client_seq: Seq(1),
        server_seq: Seq(1),
        record_seq: Seq::NONE,
        members: 0,
        chunk: b"count=1",
    };
    let why = "A throws frame 2 away, which it had not begun: the state stands for client frame 1.";
    story.say("A -> proxy", why, &Message::State(state));
    let epoch = Epoch(2);
    let seqs = Attach { client_seq: Seq(1), server_seq: Seq(1), state_total_bytes: 7, ..attach() };
    let attach = Attach { epoch, mode: AttachMode::State, format: "arena-1", ..seqs };
    story.say("proxy -> B", "mode `state`, epoch 2.", &Message::Attach(attach));
    state.epoch = epoch;
    story.say("proxy -> B", "the same state, under the new epoch.", &Message::State(state));
    let attached = Attached { subject: SUBJECT, epoch, client_seq: Seq(1), server_seq: Seq(1) };
    story.say("B -> proxy", "loaded, and inert.", &Message::Attached(attached));
    story.client("proxy -> B", "what A had been given and the state lacks, flag `again`.", 2, 2, 1, true);
    let start = Start { subject: SUBJECT, epoch };
    story.say("proxy -> B", "that was all: live input begins.", &Message::Start(start));
    story.client("proxy -> B", "the frame that waited in the proxy.", 2, 3, 1, false);
    let release = Release { subject: SUBJECT, epoch: Epoch(1) };
    story.say("proxy -> A", "forget epoch 1.", &Message::Release(release));
    story.server("B -> proxy", "the reply to frame 2: the server's sequence goes on.", 2, 2);
    story.server("B -> proxy", "the reply to frame 3.", 2, 3);
    story.ack("proxy -> B", "both were handed to the client's socket.", 2, 3);
}

fn end(story: &mut Story<'_>) {
    let (session, epoch, seq) = (SESSION, Epoch(2), Seq(4));
    let (half, again, record) = (true, false, Seq::NONE);
    let close = Close { session, epoch, seq, ack: Seq(3), record, half, again, reason: "client closed" };
    let why = "the client has sent its end of stream; it may still read.";
    story.say("proxy -> B", why, &Message::Close(close.clone()));
    let close = Close { ack: Seq(4), half: false, reason: "left", ..close };
    story.say("B -> proxy", "the game is done with the session too.", &Message::Close(close));
    story.ack("proxy -> B", "the client's socket was shut.", 2, 4);
    let release = Release { subject: SUBJECT, epoch };
    story.say("proxy -> B", "and the attachment ends.", &Message::Release(release));
}
