//! Commands of the user's that run at the turns of a reload, as people write them.
//!
//! Starts nothing.

use crate::supervisor::Hook;

/// Reads `WHEN=COMMAND`.
pub fn hook(given: &str) -> Result<(Hook, String), String> {
    let why = |why: &str| format!("`{given}` is no hook: {why}");
    let Some((when, command)) = given.split_once('=') else {
        return Err(why("write WHEN=COMMAND, for example before-start=./migrate"));
    };
    let Some(hook) = Hook::ALL.into_iter().find(|hook| hook.to_string() == when) else {
        let all = Hook::ALL.map(|hook| hook.to_string()).join(", ");
        return Err(why(&format!("`{when}` is not one of {all}")));
    };
    match command.trim().is_empty() {
        true => Err(why("the command is missing")),
        false => Ok((hook, command.to_owned())),
    }
}

/// Checks what no single hook can show: two at one turn.
pub fn distinct_hooks(hooks: &[(Hook, String)]) -> Result<(), String> {
    for (position, (hook, _)) in hooks.iter().enumerate() {
        if hooks[..position].iter().any(|(other, _)| other == hook) {
            return Err(format!("there are two hooks {hook}; write one that runs both commands"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_a_turn_and_a_command() {
        assert_eq!(hook("before-start=a=b c"), Ok((Hook::BeforeStart, "a=b c".to_owned())));
        for when in Hook::ALL {
            assert_eq!(hook(&format!("{when}=x")), Ok((when, "x".to_owned())));
        }
        for (given, words) in [
            ("", "write WHEN=COMMAND"),
            ("before-start", "write WHEN=COMMAND"),
            ("later=x", "`later` is not one of before-start, before-cut-over, after-serving, after-drain"),
            ("after-drain=", "the command is missing"),
            ("after-drain= ", "the command is missing"),
        ] {
            assert!(hook(given).unwrap_err().contains(words), "{given}");
        }
    }

    #[test]
    fn a_turn_has_one_hook() {
        let hooks = |given: &[&str]| given.iter().map(|given| hook(given).unwrap()).collect::<Vec<_>>();
        assert_eq!(distinct_hooks(&hooks(&["before-start=a", "after-drain=a"])), Ok(()));
        assert!(distinct_hooks(&hooks(&["before-start=a", "before-start=b"])).unwrap_err().contains("before-start"));
    }
}
