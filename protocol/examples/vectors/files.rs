//! What is generated: the vectors' files, and SPEC.md's sections between markers.

use holdfast_protocol::message::{MessageType, Rule};

/// (file name in `vectors/`, content)
pub fn vector_files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = MessageType::ALL
        .into_iter()
        .map(|of| (format!("{}.json", of.name().to_lowercase()), pretty(&crate::samples::vectors(of))))
        .collect();
    files.push(("link.json".to_owned(), pretty(&crate::samples::link_vectors())));
    files
}

fn pretty(value: &serde_json::Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("JSON");
    text.push('\n');
    text
}

/// SPEC.md with its generated sections made anew.
pub fn spec(text: &str) -> String {
    let sections =
        [("layouts", crate::layout::markdown()), ("rules", rules()), ("example", crate::story::markdown())];
    sections.iter().fold(text.to_owned(), |text, (name, content)| replace(&text, name, content))
}

fn replace(text: &str, name: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: generated -->\n"), format!("<!-- {name}: end -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("SPEC.md lacks {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("SPEC.md lacks {end}"));
    format!("{before}{begin}\n{content}{end}{after}")
}

fn rules() -> String {
    let mut text = "| number | rule |\n|---|---|\n".to_owned();
    Rule::ALL.iter().for_each(|rule| text.push_str(&format!("| {} | `{rule}` |\n", rule.number())));
    text.push('\n');
    text
}
