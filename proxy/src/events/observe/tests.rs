//! What is told of two looks.

use std::time::SystemTime;

use super::*;
use crate::rollout::State;
use crate::routing::Table;
use crate::routing::fitness::{Unfit, UnfitCause};
use crate::source::Publisher;

const SERVICE: &[u8] = br#"{"protocol": "link", "framing": {"kind": "length"}}"#;

fn kinds(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.kind.name()).collect()
}

#[test]
fn a_table_is_told_with_its_changes_and_a_refusal_once() {
    let (mut publisher, source) = Publisher::new();
    let look = || source.published.borrow().clone();
    let nothing = look();
    publisher.apply(7, |documents| {
        documents.put("services/arena", SERVICE, 7);
        documents.put("services/lobby", b"{}", 7);
    });
    let first = look();
    let told = of_tables(&nothing, &first);
    assert_eq!(kinds(&told), ["table_applied", "document_refused"], "it was never lost before it was there");
    assert_eq!((&told[0].details["revision"], told[0].reason.as_str()), (&7.into(), "1 changes"));
    assert!(told[0].details["changes"][0].as_str().unwrap().starts_with("added services/arena"));
    assert_eq!(told[1].details["key"], "services/lobby");
    publisher.apply(8, |documents| documents.put("services/arena", SERVICE, 8));
    let second = look();
    assert_eq!(kinds(&of_tables(&first, &second)), [""; 0], "nothing is different");
    publisher.lost("etcd is away".to_owned());
    let lost = look();
    assert_eq!(kinds(&of_tables(&second, &lost)), ["source_lost"]);
    publisher.contact();
    assert_eq!(kinds(&of_tables(&lost, &look())), ["source_back"]);
}

#[test]
fn an_ejection_and_its_end_name_the_cause() {
    let id = crate::routing::BackendId { service: "arena".into(), name: "a".into() };
    let mut unfit = Fitness::default();
    let reason = "GET /: status 500".to_owned();
    unfit.add(&id, Unfit { cause: UnfitCause::Check, reason, since: SystemTime::now(), until: None });
    let told = of_fitness(&Fitness::default(), &unfit);
    assert_eq!(kinds(&told), ["backend_ejected"]);
    assert_eq!((told[0].backend.as_deref(), &told[0].details["cause"]), (Some("arena/a"), &"check".into()));
    let over = of_fitness(&unfit, &Fitness::default());
    assert_eq!((kinds(&over), &over[0].details["fit"]), (vec!["backend_unejected"], &true.into()));
}

fn progresses(controller: &str, state: State, step: usize) -> Progresses {
    let mut documents = crate::routing::Documents::default();
    documents.put("rollouts/arena", br#"{"from": "1.4", "to": "1.5"}"#, 1);
    let table: Table = crate::routing::compile(&documents, &Default::default(), 1).table;
    let mut progress = Progress::begin(&table.rollouts["arena"], 0);
    (progress.state, progress.step) = (state, step);
    controller.clone_into(&mut progress.controller);
    [("arena".to_owned(), Arc::new(progress))].into()
}

#[test]
fn a_rollout_is_told_step_by_step_and_by_its_controller_alone() {
    let (none, first) = (Progresses::new(), progresses("host-a", State::Running, 0));
    assert_eq!(kinds(&of_rollouts("host-a", &none, &first)), ["rollout_running"]);
    assert_eq!(kinds(&of_rollouts("host-b", &none, &first)), [""; 0]);
    let second = progresses("host-a", State::Running, 1);
    let told = of_rollouts("host-a", &first, &second);
    assert_eq!((kinds(&told), &told[0].details["step"]), (vec!["rollout_running"], &2.into()));
    assert_eq!(kinds(&of_rollouts("host-a", &second, &second.clone())), [""; 0]);
    let aborting = progresses("host-a", State::Aborting, 1);
    assert_eq!(kinds(&of_rollouts("host-a", &second, &aborting)), ["rollout_aborting"]);
    assert_eq!(kinds(&of_rollouts("host-a", &aborting, &none)), ["rollout_ended"]);
}
