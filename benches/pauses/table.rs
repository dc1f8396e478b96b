//! All rows as a Markdown table.

use std::fmt::Write;

use crate::row::Row;

pub fn markdown(rows: &[Row]) -> String {
    let mut out = String::from(
        "| event | sessions | through | quiet p50 / p99 / max | pause p50 / p99 / max | all play on after | lost | \
         repeated | reordered | disconnects | bystanders' p99, quiet / event |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        // A String takes any write.
        let _ = writeln!(out, "{}", line(row));
    }
    out
}

fn line(row: &Row) -> String {
    let event = match row.own_restart_ms() {
        Some(own) => format!("{} (the game's own: {} ms)", row.event.name(), ms(own)),
        None => row.event.name().to_owned(),
    };
    let quiet = [
        row.median(|it| it.quiet_p50_ms),
        row.median(|it| it.quiet_p99_ms),
        row.median(|it| it.quiet_max_ms),
    ];
    let pause = [
        row.median(|it| it.pause_p50_ms),
        row.median(|it| it.pause_p99_ms),
        row.median(|it| it.pause_max_ms),
    ];
    let took =
        if row.event.moves() { format!("{} ms", ms(row.median(|it| it.took_ms))) } else { "-".to_owned() };
    let bystanders = match row.load.has_bystanders {
        true => {
            let quiet = row.median(|it| it.bystanders_quiet_p99_ms);
            format!("{} / {} ms", ms(quiet), ms(row.median(|it| it.bystanders_pause_p99_ms)))
        }
        false => "-".to_owned(),
    };
    let counts = row.promised().map(|(_, count)| thousands(count)).join(" | ");
    format!(
        "| {event} | {} | {} | {} | {} | {took} | {counts} | {bystanders} |",
        thousands(row.load.sessions as u64),
        row.kind.name(),
        triple(quiet),
        triple(pause)
    )
}

fn triple(values: [f64; 3]) -> String {
    format!("{} ms", values.map(ms).join(" / "))
}

pub fn ms(value: f64) -> String {
    if value < 99.95 { format!("{value:.1}") } else { thousands(value.round() as u64) }
}

pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
