//! The variables of the environment that begin as ours do and are none of ours.

use clap::CommandFactory;

use super::cli::Cli;

/// Variables that are no flag's.
const OTHERS: [&str; 4] = [
    "SLUICEGATE_CLICKHOUSE_PASSWORD",
    "SLUICEGATE_CLICKHOUSE_LIBRARY",
    "SLUICEGATE_BECOME_ENGINE",
    super::send::WRITE_KEY_VARIABLE,
];

/// What Kubernetes sets in every container for a service of the name `sluicegate`: the port of a
/// Docker link, and the address.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
const OF_KUBERNETES: [&str; 2] = ["SLUICEGATE_PORT", "SLUICEGATE_SERVICE_"];

/// From this likeness on another name is offered.
const LIKENESS_MIN: f64 = 0.7;

/// A sentence for each variable of these that begins with `SLUICEGATE_` and has no effect.
pub fn warnings(names: impl Iterator<Item = String>) -> Vec<String> {
    let known = known();
    names
        .filter(|name| name.starts_with("SLUICEGATE_") && !known.contains(name))
        .filter(|name| !OF_KUBERNETES.iter().any(|begin| name.starts_with(begin)))
        .map(|name| match nearest(&known, &name) {
            Some(other) => format!("the variable {name} has no effect; did you mean {other}?"),
            None => format!("the variable {name} has no effect; `sluicegate serve --help` lists the variables"),
        })
        .collect()
}

fn known() -> Vec<String> {
    let command = Cli::command();
    let of_flags = command
        .get_subcommands()
        .flat_map(|subcommand| subcommand.get_arguments())
        .filter_map(|argument| argument.get_env())
        .map(|name| name.to_string_lossy().into_owned());
    of_flags.chain(OTHERS.map(str::to_owned)).collect()
}

fn nearest<'a>(known: &'a [String], name: &str) -> Option<&'a str> {
    // All begin alike: the rest says which it is.
    let rest = |name: &str| name.trim_start_matches("SLUICEGATE_").to_owned();
    let name = rest(name);
    let likeness = known.iter().map(|other| (strsim::jaro_winkler(&rest(other), &name), other));
    let best = likeness.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > LIKENESS_MIN).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings_of(names: &[&str]) -> Vec<String> {
        warnings(names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn a_variable_without_effect_is_named_with_its_nearest() {
        let found = warnings_of(&["SLUICEGATE_SPOOL_DIRECTORY", "PATH", "SLUICEGATE_XQZ"]);
        assert_eq!(
            found,
            [
                "the variable SLUICEGATE_SPOOL_DIRECTORY has no effect; did you mean SLUICEGATE_SPOOL_DIR?",
                "the variable SLUICEGATE_XQZ has no effect; `sluicegate serve --help` lists the variables",
            ]
        );
    }

    #[test]
    fn what_has_an_effect_or_comes_from_kubernetes_is_not_warned_of() {
        let names = [
            "SLUICEGATE_LISTEN",
            "SLUICEGATE_CONFIG",
            "SLUICEGATE_CLICKHOUSE_PASSWORD",
            "SLUICEGATE_PORT",
            "SLUICEGATE_PORT_8080_TCP_ADDR",
            "SLUICEGATE_SERVICE_HOST",
        ];
        assert_eq!(warnings_of(&names), Vec::<String>::new());
    }
}
