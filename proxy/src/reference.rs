//! The reference of every key and field, as a Markdown page and as JSON Schema, made from the types that read them.
//!
//! What a field may be, its default and what it says stand with the types alone; here they are only laid out. The
//! prose around them is in `begin.md` and `end.md`. `docs/` has what this gives, and a test compares the two.

mod fields;
mod page;
mod refusals;
mod written;

#[cfg(test)]
mod tests;

use crate::routing::document::schema::KINDS;

pub use page::{page, schema};

/// A valid document of each kind, which fit together: key, text.
pub const EXAMPLES: &[(&str, &str)] = &[
    ("services/arena", include_str!("reference/examples/services/arena.json")),
    ("backends/arena/a", include_str!("reference/examples/backends/arena/a.json")),
    ("backends/arena/b", include_str!("reference/examples/backends/arena/b.json")),
    ("backends/arena/c", include_str!("reference/examples/backends/arena/c.json")),
    ("routes/public", include_str!("reference/examples/routes/public.json")),
    ("drains/arena/a", include_str!("reference/examples/drains/arena/a.json")),
    ("ejections/arena/b", include_str!("reference/examples/ejections/arena/b.json")),
    ("rollouts/arena", include_str!("reference/examples/rollouts/arena.json")),
    ("hooks/hot", include_str!("reference/examples/hooks/hot.json")),
    ("accepts/arena", include_str!("reference/examples/accepts/arena.json")),
];

/// Path below `docs/` and content of every file that is made from the types.
#[must_use]
pub fn files() -> Vec<(String, String)> {
    let schemas = KINDS.iter().map(|kind| {
        let text = serde_json::to_string_pretty(&kind.schema()).unwrap_or_default();
        (format!("schema/{}.json", kind.name), format!("{text}\n"))
    });
    [("reference.md".to_owned(), page())].into_iter().chain(schemas).collect()
}
