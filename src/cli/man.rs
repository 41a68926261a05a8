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
        command_part(command, "gannet", &mut page)?;
    }
    page.write_all(SECTIONS.as_bytes())?;
    Ok(escape(&String::from_utf8_lossy(&page)).into_bytes())
}

/// Replaces characters beyond ASCII by their escapes: whether roff reads UTF-8 depends on the system.
fn escape(page: &str) -> String {
    page.chars()
        .map(|c| match c.is_ascii() {
            true => c.to_string(),
            false => format!("\\[u{:04X}]", u32::from(c)),
        })
        .collect()
}

/// The sections that do not come from the command line, as roff: man(7), man-pages(7).
const SECTIONS: &str = r#".SH "EXIT STATUS"
.TP
.B 0
Every target is fine, or no more failed than \fB\-\-max\-failures\fR allows.
.TP
.B 1
The command could not run: the settings, the list, the store or the catalog cannot be used.
.TP
.B 2
Wrong usage.
.TP
.B 3
More targets were rejected or failed than \fB\-\-max\-failures\fR allows (default 0), or \fB\-\-count\fR was not reached.
.TP
.B 4
Another run holds the store or its catalog.
.TP
.B 129, 130, 143
Stopped by SIGHUP, SIGINT or SIGTERM. The files that had arrived are kept.
.PP
\fB\-\-exit\-unchanged\fR \fICODE\fR replaces 0 if nothing was stored or changed.
.SH ENVIRONMENT
.TP
.BI GANNET_ SECTION __ KEY
Changes the setting \fISECTION\fR.\fIKEY\fR: \fBGANNET_FETCH__PER_HOST=2\fR. Takes precedence over the settings file;
\fB\-\-set\fR and flags take precedence over it.
.TP
.BI GANNET_ SECTION __ KEY _FILE
Names a file that holds the value, such as a password.
.TP
.B http_proxy, https_proxy, all_proxy, no_proxy
Proxies, unless \fBfetch.proxy\fR or \fB[proxies]\fR names any.
.TP
.B NO_COLOR, CLICOLOR_FORCE, TERM
Decide whether output is coloured and whether a progress bar is drawn.
.SH FILES
.TP
.I ./gannet.toml, /etc/gannet/gannet.toml
Settings: the first that exists, unless \fB\-\-config\fR names another file.
.TP
.I /etc/gannet/credentials/
Passwords and tokens that systemd hands to the service.
.TP
.I /var/lib/gannet/
Working directory of the service.
.TP
.I STORE/.gannet/
Unfinished files, the catalog (\fIcatalog.db\fR), copies of remote lists, and the socket of the daemon, below the folder that
\fB\-\-output\fR or \fBstorage.root\fR names.
.TP
.I ~/.netrc
User names and passwords, with \fB\-\-netrc\fR.
.SH EXAMPLES
Fetch what is new on a list, into a folder:
.PP
.in +4n
.EX
gannet fetch list.txt \-o pictures
.EE
.in
.PP
Fetch a picture itself:
.PP
.in +4n
.EX
gannet fetch \-u https://example.org/cat.jpg
.EE
.in
.PP
Fetch exactly 100 pictures that an image search finds, into the album \fIpandas\fR:
.PP
.in +4n
.EX
gannet fetch \(aqsearch:openverse?q=red panda\(aq \-n 100 \-a pandas
.EE
.in
.PP
Read URLs from standard input, accept that one in twenty fails, and write a report:
.PP
.in +4n
.EX
zcat urls.gz | gannet fetch \- \-\-max\-failures 5% \-\-report report.html
.EE
.in
.PP
Request once more what failed last time, and ask why a picture did not come:
.PP
.in +4n
.EX
gannet retry last
gannet why https://example.org/cat.jpg
.EE
.in
.PP
Validate the settings, then run the schedules:
.PP
.in +4n
.EX
gannet check \-c gannet.toml
gannet daemon \-c gannet.toml
.EE
.in
"#;

/// Writes a section for `command` and one for each of its subcommands. `parent` is the command before it.
fn command_part(command: &clap::Command, parent: &str, page: &mut Vec<u8>) -> std::io::Result<()> {
    let name = format!("{parent} {}", command.get_name());
    let has_extra = command.get_after_help().is_some() || command.get_after_long_help().is_some();
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    // What holds for every command stands at the top of the page, once.
    let global: Vec<_> = command
        .get_arguments()
        .filter(|arg| arg.is_global_set() || arg.get_id() == "help")
        .map(|arg| arg.get_id().clone())
        .collect();
    let command = global.into_iter().fold(command.clone(), |command, id| {
        command.mut_arg(id, |arg| arg.hide(true))
    });
    writeln!(page, ".SH \"{}\"", name.to_uppercase())?;
    let man = Man::new(command);
    let mut part = Vec::new();
    man.render_synopsis_section(&mut part)?;
    man.render_description_section(&mut part)?;
    man.render_options_section(&mut part)?;
    if has_extra {
        man.render_extra_section(&mut part)?;
    }
    // Its sections are subsections here.
    let part = String::from_utf8_lossy(&part);
    for line in part.lines() {
        match line.strip_prefix(".SH ") {
            Some(title) => writeln!(page, ".SS {title}")?,
            None => writeln!(page, "{line}")?,
        }
    }
    subcommands
        .iter()
        .try_for_each(|subcommand| command_part(subcommand, &name, page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_page_has_every_command_and_its_options() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        assert!(page.is_ascii());
        let mut titles = Vec::new();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            titles.push(format!("GANNET {name}"));
            let subcommands = command.get_subcommands();
            titles.extend(subcommands.map(|sub| format!("GANNET {name} {}", sub.get_name())));
        }
        assert!(titles.contains(&"GANNET catalog status".to_owned()));
        titles.extend(["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"].map(str::to_owned));
        for title in titles {
            let title = title.to_uppercase();
            let [quoted, plain] = [format!(".SH \"{title}\"\n"), format!(".SH {title}\n")];
            assert!(page.contains(&quoted) || page.contains(&plain), "{title}");
        }
        assert!(page.contains("max\\-failures"), "{page}");
        assert_eq!(
            page.matches("\\-\\-log\\-format").count(),
            2,
            "once in the synopsis, once below it"
        );
    }
}
