//! The test vectors and SPEC.md say what the codec does.

#[path = "../../examples/vectors/files.rs"]
mod files;
#[path = "../../examples/vectors/layout.rs"]
mod layout;
#[path = "../../examples/vectors/samples.rs"]
mod samples;
mod second_reading;
#[path = "../../examples/vectors/story.rs"]
mod story;
#[path = "../../examples/vectors/tables.rs"]
mod tables;
#[path = "../../examples/vectors/view.rs"]
mod view;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use holdfast_protocol::{MAX_MESSAGE_BYTES, MessageType, decode, decode_first, encode};
use serde_json::{Value, json};

const HINT: &str = "write it anew: cargo run -p holdfast-protocol --example vectors";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}; {HINT}"))
}

/// Every vector on disk, with the file it stands in.
fn vectors() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for (name, _) in files::vector_files() {
        let list: Vec<Value> = serde_json::from_str(&file(&format!("vectors/{name}"))).expect("a JSON list");
        all.extend(list.into_iter().map(|vector| (format!("{name}: {}", vector["name"]), vector)));
    }
    all
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let pairs = digits.chunks(2);
    pairs.map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hexadecimal")).collect()
}

fn bytes_of(vector: &Value) -> Vec<u8> {
    unhex(vector["hex"].as_str().expect("hex"))
}

#[test]
fn the_files_on_disk_are_what_the_generator_writes() {
    let expected = files::vector_files();
    for (name, content) in &expected {
        assert_eq!(&file(&format!("vectors/{name}")), content, "{name}; {HINT}");
    }
    let names: BTreeSet<String> = expected.into_iter().map(|(name, _)| name).collect();
    let on_disk = std::fs::read_dir(root().join("vectors")).expect("vectors/");
    let on_disk = on_disk.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let on_disk: BTreeSet<String> = on_disk.filter(|name| name.ends_with(".json")).collect();
    assert_eq!(on_disk, names, "{HINT}");
}

#[test]
fn the_generated_sections_of_the_spec_are_current() {
    let text = file("SPEC.md");
    assert!(files::spec(&text) == text, "SPEC.md is not what the codec does; {HINT}");
}

#[test]
fn every_vector_is_read_as_it_says() {
    for (name, vector) in vectors() {
        let bytes = bytes_of(&vector);
        let first = vector["first"] == json!(true);
        let read = if first { decode_first } else { decode }(&bytes, MAX_MESSAGE_BYTES);
        match read {
            Ok(Some((message, taken))) => {
                assert_eq!(taken, bytes.len(), "{name}");
                assert_eq!(view::view(&message), vector["message"], "{name}");
            }
            Ok(None) => assert_eq!(vector["incomplete"], json!(true), "{name}"),
            Err(error) => assert_eq!(vector["error"], json!(error.name()), "{name}: {error}"),
        }
    }
}

#[test]
fn valid_vectors_are_written_back_byte_for_byte() {
    let mut written = 0;
    for (name, vector) in vectors() {
        if vector["message"].is_null() || vector["canonical"] == json!(false) {
            continue;
        }
        let bytes = bytes_of(&vector);
        let (message, _) = decode(&bytes, MAX_MESSAGE_BYTES).expect("valid").expect("whole");
        let mut again = Vec::new();
        encode(&message, &mut again);
        assert_eq!(view::hex(&again), view::hex(&bytes), "{name}");
        written += 1;
    }
    assert!(written >= MessageType::ALL.len(), "only {written} valid vectors");
}

#[test]
fn every_type_has_valid_and_several_invalid_vectors() {
    for of in MessageType::ALL {
        let text = file(&format!("vectors/{}.json", of.name().to_lowercase()));
        let list: Vec<Value> = serde_json::from_str(&text).expect("a JSON list");
        let valid = list.iter().filter(|vector| vector["message"]["type"] == json!(of.name())).count();
        let invalid = list.iter().filter(|vector| vector["error"].is_string()).count();
        assert!(valid >= 2 && invalid >= 2, "{of}: {valid} valid, {invalid} invalid");
    }
}

#[test]
fn the_layout_tables_describe_the_bytes() {
    for of in MessageType::ALL {
        let fixed: usize = tables::layout(of).fields.iter().filter_map(|field| field.shape.bytes()).sum();
        assert_eq!(fixed, of.fixed_bytes(), "{of}");
    }
    for (name, vector) in vectors() {
        if vector["message"].is_null() || vector["canonical"] == json!(false) {
            continue;
        }
        let bytes = bytes_of(&vector);
        let of = MessageType::from_number(bytes[4]).expect("a type");
        assert_eq!(second_reading::read(of, &bytes), vector["message"], "{name}");
    }
}

/// The dumps of SPEC.md: what each says it is, and its bytes.
fn dumps(spec: &str) -> Vec<(String, Value, Vec<u8>)> {
    let blocks = spec.split("```dump\n").skip(1);
    blocks
        .map(|block| {
            let (block, _) = block.split_once("```").expect("a closed block");
            let (head, rows) = block.split_once('\n').expect("a head line");
            let (way, view) = head.split_once(" {").expect("a message as JSON");
            let view = serde_json::from_str(&format!("{{{view}")).expect("JSON");
            let hex: String = rows.lines().filter_map(|row| row.get(6..row.len().min(54))).collect();
            (way.to_owned(), view, unhex(&hex))
        })
        .collect()
}

#[test]
fn the_worked_example_of_the_spec_is_what_it_says() {
    let dumps = dumps(&file("SPEC.md"));
    assert_eq!(dumps.len(), 27);
    for (step, (way, says, bytes)) in dumps.iter().enumerate() {
        let (message, taken) = decode(bytes, MAX_MESSAGE_BYTES).expect("valid").expect("whole");
        assert_eq!(taken, bytes.len(), "step {}", step + 1);
        assert_eq!(&view::view(&message), says, "step {} ({way})", step + 1);
    }
    let types: BTreeSet<&str> = dumps.iter().filter_map(|(_, says, _)| says["type"].as_str()).collect();
    assert!(types.is_superset(&BTreeSet::from(["FREEZE", "STATE", "ATTACH", "START", "RELEASE", "CLOSE"])));
}

/// The rows of the table of state x message under a heading, each as its cells.
fn state_table(spec: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = spec.split_once(heading).expect("the heading");
    let (_, table) = section.split_once("| message |").expect("the table");
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().skip(2).take_while(|row| row.starts_with('|')).map(cells).collect()
}

#[test]
fn the_state_tables_have_no_empty_cell_and_name_every_message_of_an_attachment() {
    let spec = file("SPEC.md");
    let to_backend =
        "ATTACH START DATA RECORD ACK FREEZE THAW RELEASE STATE CHECKPOINT CREDIT CLOSE FAULT".split(' ');
    let to_proxy = "ATTACHED REFUSED DATA RECORD ACK STATE CREDIT JOIN CLOSE FAULT".split(' ');
    let sides =
        [("\n## 15. ", 8, to_backend.collect::<Vec<_>>()), ("\n## 16. ", 7, to_proxy.collect::<Vec<_>>())];
    for (heading, states, messages) in sides {
        let rows = state_table(&spec, heading);
        for row in &rows {
            assert_eq!(row.len(), states + 1, "{row:?}");
            assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        }
        for message in messages {
            let named = |row: &Vec<String>| row[0].split([' ', ',', '(']).any(|word| word == message);
            assert!(rows.iter().any(named), "{heading}: {message}");
        }
    }
}
