//! The JSON schema of the configuration file, for editors, made from clap's definition of the options.
//!
//! Only tests make it: they compare it with the one in `contrib`, and write that where they are asked to.

use clap::{Arg, ArgAction};
use serde_json::{Map, Value, json};

use super::file::{COMMAND, MOST_COUNTED, TABLES, definition, options};

/// Set, it has the test write the file.
const WRITE: &str = "ZDR_WRITE_SCHEMA";

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/zdr.schema.json");

fn schema() -> Value {
    let command = json!({
        "description": "The server and its arguments, each word by itself",
        "type": "array",
        "items": { "type": "string" },
        "minItems": 1,
    });
    let run = definition();
    let of_option = |option: &Arg| (option.get_long().unwrap_or_default().to_owned(), property(option));
    let properties: Map<String, Value> =
        [(COMMAND.to_owned(), command)].into_iter().chain(options(&run).map(of_option)).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration file of zdr",
        "description": "The long options of `zdr run` and its command, see CONFIGURATION FILE in zdr(1)",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn property(option: &Arg) -> Value {
    let name = option.get_long().unwrap_or_default();
    let mut property = match option.get_action() {
        ArgAction::SetTrue => json!({ "type": "boolean" }),
        ArgAction::Count => json!({ "type": ["boolean", "integer"], "minimum": 0, "maximum": MOST_COUNTED }),
        ArgAction::Append => {
            let mut forms = vec![value(option), json!({ "type": "array", "items": value(option) })];
            if TABLES.contains(&name) {
                forms.push(json!({ "type": "object", "additionalProperties": value(option) }));
            }
            json!({ "anyOf": forms })
        }
        _ => value(option),
    };
    property["description"] = option.get_help().map(ToString::to_string).unwrap_or_default().into();
    if option.get_action().takes_values() {
        match option.get_default_values() {
            [] => {}
            [one] => property["default"] = default(&one.to_string_lossy()),
            several => property["default"] = several.iter().map(|value| default(&value.to_string_lossy())).collect(),
        }
    }
    property
}

fn value(option: &Arg) -> Value {
    let possible: Vec<String> = option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if possible.is_empty() { json!({ "type": ["string", "integer"] }) } else { json!({ "enum": possible }) }
}

fn default(text: &str) -> Value {
    text.parse::<u32>().map_or_else(|_| text.into(), Value::from)
}

#[test]
fn the_schema_for_editors_has_the_options_of_the_program() {
    let made = format!("{:#}\n", schema());
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(PATH, &made).unwrap();
    }
    let kept = std::fs::read_to_string(PATH).unwrap_or_default();
    let how = format!("{PATH} is old; write it anew by `{WRITE}=1 cargo test --bin zdr the_schema_for_editors`");
    assert!(made == kept, "{how}");
}
