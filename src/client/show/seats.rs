//! The generations of a picture as a table, and their instances where they have several: a line for each of a few, and
//! of many how many do what.

use serde_json::Value;

use super::screen::{Cell, FAINT, NAME, PASSING, PLAIN, Screen};
use super::status::{colourful, text};
use super::words::{age, list, number};

/// Up to so many instances of a generation have lines of their own.
const FEW: usize = 8;

/// How text that belongs to a line stands below it.
const BELOW: &str = "              ";

const COLUMNS: usize = 8;

/// A line, and the text below it.
struct Row {
    cells: [Cell; COLUMNS],
    below: String,
}

/// A table of the generations, with what they say of themselves and their instances below their lines.
pub(super) fn seats(generations: &[Value], screen: Screen) -> String {
    if generations.is_empty() {
        return String::new();
    }
    let has = |key: &str| generations.iter().any(|seat| seat[key].is_number());
    let is_changed = generations.iter().any(is_of_another_configuration);
    let has_command = generations.iter().any(|seat| !list(&seat["command"]).is_empty());
    let title = |wanted: bool, text: &str| Cell::new(FAINT, if wanted { text } else { "" });
    let head = [
        title(true, "GENERATION"),
        title(true, "SEAT"),
        title(true, "FOR"),
        title(true, "PID"),
        title(is_changed, "CONFIG"),
        title(has("connections"), "OPEN"),
        title(has("in_flight"), "IN FLIGHT"),
        title(has_command, "COMMAND"),
    ];
    let rows: Vec<Row> = generations.iter().flat_map(|seat| rows_of(seat, is_changed, screen)).collect();
    let cells: Vec<_> = [head].into_iter().chain(rows.iter().map(|row| row.cells.clone())).collect();
    let table = screen.table("  ", &cells);
    let below = [""].into_iter().chain(rows.iter().map(|row| row.below.as_str()));
    table.lines().zip(below).flat_map(|(line, below)| [line, "\n", below]).collect()
}

/// Not the first one, which goes without saying.
fn is_of_another_configuration(seat: &Value) -> bool {
    seat["config_version"].as_u64().is_some_and(|version| version > 1)
}

/// The line of a generation, and those of its instances.
fn rows_of(seat: &Value, is_changed: bool, screen: Screen) -> Vec<Row> {
    let command: Vec<&str> = list(&seat["command"]).iter().filter_map(Value::as_str).collect();
    let (seat_name, instances) = (text(seat, "seat"), list(&seat["instances"]));
    let is_one = instances.len() < 2;
    let cells = [
        Cell::right(if seat_name == "serving" { NAME } else { PLAIN }, &number(&seat["generation"])),
        colourful(seat_name),
        Cell::plain(&age(&seat["since_secs"]).unwrap_or_default()),
        Cell::plain(&if is_one { number(&seat["pid"]) } else { String::new() }),
        Cell::right(PLAIN, &if is_changed { number(&seat["config_version"]) } else { String::new() }),
        Cell::right(PLAIN, &number(&seat["connections"])),
        Cell::right(PLAIN, &number(&seat["in_flight"])),
        Cell::plain(&command.join(" ")),
    ];
    let mut below = String::new();
    if instances.len() > FEW {
        below.push_str(&screen.hanging(BELOW, PLAIN, &by_state(instances)));
    }
    if let Some(said) = seat["status_text"].as_str().filter(|said| !said.trim().is_empty()) {
        below.push_str(&screen.hanging(BELOW, PLAIN, said));
    }
    let few = if is_one || instances.len() > FEW { &[] } else { instances };
    let each = few.iter().map(|instance| row_of(&seat["generation"], instance));
    [Row { cells, below }].into_iter().chain(each).collect()
}

fn row_of(generation: &Value, instance: &Value) -> Row {
    let state = text(instance, "state");
    let state = match state {
        "ready" => Cell::new(PASSING, state),
        // Its turn comes.
        "waiting" => Cell::plain(state),
        _ => colourful(state),
    };
    let name = format!("{}.{}", number(generation), number(&instance["instance"]));
    let nothing = || Cell::plain("");
    let pid = Cell::plain(&number(&instance["pid"]));
    let cells = [Cell::right(PLAIN, &name), state, nothing(), pid, nothing(), nothing(), nothing(), nothing()];
    Row { cells, below: String::new() }
}

/// `64 instances: 60 serving, 4 starting`, in the order of a life.
fn by_state(instances: &[Value]) -> String {
    let of = |state: &str| instances.iter().filter(|instance| instance["state"] == state).count();
    let states = ["serving", "ready", "starting", "waiting", "draining"].map(|state| (of(state), state));
    let told = states.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}"));
    format!("{} instances: {}", instances.len(), told.collect::<Vec<_>>().join(", "))
}
