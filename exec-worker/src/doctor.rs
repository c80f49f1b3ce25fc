//! `exec-worker doctor`: what this host can do of the confinement, and which level is to be had. It needs no
//! database, and starts nothing but the launcher.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use confine::Level;
use confine::doctor::{Row, examine, is_available};

use crate::config::Confinement;
use crate::error::Error;

/// The word that asks for it.
pub const DOCTOR: &str = "doctor";

/// The exit code where the level that is chosen is not to be had.
const UNAVAILABLE: u8 = 3;

/// Prints, step by step, what this host can do, and what each level of confinement would use.
///
/// Exits with 0 where the chosen level is available, with 3 where it is not, with 2 where a setting is
/// wrong, and with 1 where it cannot be told.
#[derive(Debug, Parser)]
#[command(name = "exec-worker doctor", version)]
pub struct Doctor {
    #[command(flatten)]
    confinement: Confinement,

    /// Print JSON: an array of objects with the columns of shell.confinement().
    #[arg(long)]
    json: bool,
}

impl Doctor {
    /// Prints it.
    pub fn run(&self) -> ExitCode {
        match self.answer() {
            Ok(code) => code,
            Err(e) => {
                eprintln!("exec-worker: {e}");
                ExitCode::from(e.exit_code())
            }
        }
    }

    fn answer(&self) -> Result<ExitCode, Error> {
        let level = self.confinement.level;
        let rows = examine(&self.confinement.launcher()?, &std::env::temp_dir())?;
        let text = if self.json {
            serde_json::to_string_pretty(&rows).expect("strings and booleans") + "\n"
        } else {
            table(&rows, level)
        };
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|source| Error::System {
                what: "writing the answer",
                source,
            })?;
        Ok(if is_available(&rows, level) {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(UNAVAILABLE)
        })
    }
}

/// For people: a line a row, and below it what can be done where something is missing.
fn table(rows: &[Row], level: Level) -> String {
    let head = ["STEP", "HERE", "STRICT", "BASIC", "WHAT WAS TRIED"].map(String::from);
    let mut lines = vec![(head, "")];
    for row in rows {
        let here = if row.available { "yes" } else { "no" };
        let cells = [&row.step, here, &row.strict, &row.basic, &row.detail].map(String::from);
        lines.push((cells, row.hint.as_str()));
    }
    let width = |at: usize| lines.iter().map(|(cells, _)| cells[at].len()).max();
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| width(at).unwrap_or(0));
    let mut text = String::new();
    for ([step, here, strict, basic, detail], hint) in &lines {
        let line = format!("{step:a$}  {here:b$}  {strict:c$}  {basic:d$}  {detail}");
        text += line.trim_end();
        text += "\n";
        if !hint.is_empty() {
            text += &format!("{:a$}    {hint}\n", "");
        }
    }
    let available = if is_available(rows, level) {
        "available"
    } else {
        "NOT available: every command would be refused"
    };
    text + &format!("\nThe chosen level is {level}, and it is {available}.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let row = |step: &str, available| Row {
            step: step.into(),
            available,
            detail: "tried".into(),
            hint: if available { "" } else { "Do it." }.into(),
            strict: "required".into(),
            basic: "not used".into(),
        };
        let text = table(&[row("a", true), row("longer", false)], Level::Strict);
        assert_eq!(
            text,
            "STEP    HERE  STRICT    BASIC     WHAT WAS TRIED\n\
             a       yes   required  not used  tried\n\
             longer  no    required  not used  tried\n          \
             Do it.\n\n\
             The chosen level is strict, and it is NOT available: every command would be refused.\n"
        );
    }
}
