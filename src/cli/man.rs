//! `gannet man`: one page for all commands.

use std::io::Write as _;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::args::Cli;

pub(super) fn run() -> anyhow::Result<u8> {
    page()
        .and_then(|page| std::io::stdout().lock().write_all(&page))
        .context("cannot print the manual page")?;
    Ok(0)
}

/// The page as roff: the program, then a part for each command.
fn page() -> std::io::Result<Vec<u8>> {
    let mut root = Cli::command();
    root.build();
    let man = Man::new(root.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in root.get_subcommands() {
        command_part(command, &mut page)?;
    }
    man.render_extra_section(&mut page)?;
    Ok(page)
}

fn command_part(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    // What holds for every command stands at the top of the page, once.
    let global: Vec<_> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set() || arg.get_id() == "help")
        .map(|arg| arg.get_id().clone())
        .collect();
    let command = global.into_iter().fold(command.clone(), |command, id| {
        command.mut_arg(id, |arg| arg.hide(true))
    });
    writeln!(page, ".SH \"GANNET {}\"", command.get_name().to_uppercase())?;
    let man = Man::new(command);
    let mut part = Vec::new();
    man.render_synopsis_section(&mut part)?;
    man.render_description_section(&mut part)?;
    man.render_options_section(&mut part)?;
    man.render_extra_section(&mut part)?;
    // Its sections are subsections here.
    let part = String::from_utf8_lossy(&part);
    for line in part.lines() {
        match line.strip_prefix(".SH ") {
            Some(title) => writeln!(page, ".SS {title}")?,
            None => writeln!(page, "{line}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_has_every_command_and_its_options() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for command in Cli::command().get_subcommands() {
            let title = format!(".SH \"GANNET {}\"", command.get_name().to_uppercase());
            assert!(page.contains(&title), "{title}");
        }
        assert!(page.contains("max\\-failures"), "{page}");
        assert_eq!(
            page.matches("\\-\\-log\\-format").count(),
            2,
            "once in the synopsis, once below it"
        );
    }
}
