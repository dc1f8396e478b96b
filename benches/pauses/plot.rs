//! The table as a plot: for each row the quiet p99 and the event's p99 and max, on a logarithmic scale of time.
//!
//! Colours are of middle brightness, and the text follows the reader's light or dark theme.

use std::fmt::Write;

use crate::front::Kind;
use crate::row::Row;
use crate::table::thousands;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 690.0;
const TOP: f64 = 84.0;
const LINE: f64 = 17.0;
/// Between groups of rows: an event at a number of sessions.
const GAP: f64 = 9.0;
/// In powers of ten of a millisecond.
const SCALE: std::ops::RangeInclusive<i32> = -1..=4;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#57606a}.t{font-size:14px;fill:#1f2328}\
.g{stroke:#8b949e;stroke-opacity:.3}.Holdfast{stroke:#1a9c5b;fill:#1a9c5b}.HAProxy{stroke:#3b82d6;fill:#3b82d6}\
.Envoy{stroke:#c2599b;fill:#c2599b}line{stroke-width:2}line.g{stroke-width:1}.q{fill-opacity:0;stroke-width:2}.bad{fill:#d1242f}\
@media(prefers-color-scheme:dark){text{fill:#9aa4af}.t{fill:#e6edf3}.bad{fill:#ff7b72}}";

pub fn svg(rows: &[Row]) -> String {
    let mut body = String::new();
    let mut y = TOP;
    let mut group = None;
    for row in rows {
        let own = (row.event.name(), row.load.sessions);
        if group != Some(own) {
            y += if group.is_some() { GAP } else { 0.0 };
            let name = format!("{}, {}", row.event.name(), thousands(row.load.sessions as u64));
            text(&mut body, 8.0, y, "", &name);
        }
        group = Some(own);
        draw(&mut body, row, y);
        y += LINE;
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" \
         aria-label=\"Pauses of players by event, number of sessions and proxy\"><style>{STYLE}</style>\n",
        y + 12.0
    );
    head(&mut out, y);
    out.push_str(&body);
    out.push_str("</svg>\n");
    out
}

fn head(out: &mut String, bottom: f64) {
    text(out, 8.0, 6.0, "t", "The longest a player waited for a reply (log scale)");
    text(
        out,
        8.0,
        26.0,
        "",
        "ring: p99 of a quiet window as long; dot: p99 of the event; line: to the slowest player",
    );
    for power in SCALE {
        let ms = 10f64.powi(power);
        let at = place(ms);
        // A String takes any write, here and below.
        let _ = writeln!(
            out,
            "<line class=\"g\" x1=\"{at:.0}\" x2=\"{at:.0}\" y1=\"{TOP}\" y2=\"{bottom:.0}\"/>"
        );
        let label = if ms < 1000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1000.0) };
        text(out, at - 12.0, TOP - 20.0, "", &label);
    }
}

fn draw(out: &mut String, row: &Row, top: f64) {
    let (name, y) = (row.kind.name(), top + LINE / 2.0);
    let (quiet, p99) = (place(row.median(|it| it.quiet_p99_ms)), place(row.median(|it| it.pause_p99_ms)));
    let max = place(row.median(|it| it.pause_max_ms));
    text(out, LEFT - 66.0, top, "", name);
    let _ = writeln!(
        out,
        "<g class=\"{name}\"><line x1=\"{quiet:.1}\" x2=\"{max:.1}\" y1=\"{y}\" y2=\"{y}\"/>\
         <circle class=\"q\" cx=\"{quiet:.1}\" cy=\"{y}\" r=\"4\"/><circle cx=\"{p99:.1}\" cy=\"{y}\" r=\"4\"/></g>"
    );
    let [lost, .., disconnects] = row.promised().map(|(_, count)| count);
    let (class, said) = match (disconnects, lost) {
        (0, 0) => ("", "nobody disconnected".to_owned()),
        (0, lost) => ("bad", format!("{} frames lost", thousands(lost))),
        (gone, _) => ("bad", format!("{} disconnected", thousands(gone))),
    };
    let said = if row.kind == Kind::Holdfast && class.is_empty() { "nothing lost".to_owned() } else { said };
    text(out, RIGHT + 16.0, top, class, &said);
}

fn place(ms: f64) -> f64 {
    let (first, last) = (f64::from(*SCALE.start()), f64::from(*SCALE.end()));
    let share = (ms.max(1e-9).log10().clamp(first, last) - first) / (last - first);
    LEFT + share * (RIGHT - LEFT)
}

fn text(out: &mut String, x: f64, top: f64, class: &str, text: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let _ = writeln!(out, "<text{class} x=\"{x:.0}\" y=\"{:.1}\">{text}</text>", top + LINE / 2.0 + 4.0);
}
