//! `midge top`.

use super::{
    client::{Client, encode},
    exit::{CliError, Exit},
    human::list,
    output,
};
use clap::Args;
use serde_json::Value;

/// The narrowest column, as Docker's.
const COLUMN_MIN: usize = 20;

/// The space between two columns, as Docker's.
const COLUMN_GAP: usize = 3;

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// A task of any node (id, SERVICE.SLOT), or a container of this one
    #[arg(value_name = "TASK|CONTAINER")]
    container: String,
    /// Options of ps: -ef (the default), aux, -o COLUMN,...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTION")]
    options: Vec<String>,
}

pub(super) fn run(client: &Client, args: &TopArgs) -> Result<Exit, CliError> {
    let name = encode(&args.container);
    let options = encode(&args.options.join(" "));
    let table = client.get(&format!("/containers/{name}/top?ps_args={options}"))?;
    let cells = |row: &[Value]| -> Vec<String> {
        row.iter().map(|cell| cell.as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut lines = vec![cells(list(&table, "/Titles"))];
    lines.extend(list(&table, "/Processes").iter().filter_map(|row| Some(cells(row.as_array()?))));
    output::raw(render(&lines).as_bytes())?;
    Ok(Exit::Ok)
}

fn render(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        (widest + COLUMN_GAP).max(COLUMN_MIN)
    };
    let mut text = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < line.len() {
                let pad = width(column).saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', pad));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let line = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = render(&[line(["UID", "CMD"]), line(["a-user-with-a-long-name", "sh"])]);
        expect_test::expect![[r"
            UID                       CMD
            a-user-with-a-long-name   sh
        "]]
        .assert_eq(&text);
    }
}
