//! The settings as types, and the layers that they come from.
//!
//! [`Config`] composes the sections, each of which is a type of the room that it steers. [`Config::load`]
//! lays the sources over one another (later ones win): `config/default.toml`, which is compiled in and the one
//! place of defaults; a file; environment variables `GANNET_SECTION__KEY`; `--set KEY=VALUE` and flags. What
//! cannot be used is a [`ConfigError`] that names the source, the key and what is allowed.
//!
//! This room reads one file, and those that variables `GANNET_SECTION__KEY_FILE` name: the environment is handed to it.

mod daemon;
mod error;
mod layer;
mod masked;
mod schedule;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::downloader::image;
use crate::local_path::LocalPath;
use crate::{
    api, catalog, fault, fetch, job, naming, notify, rendition, source, step, store, telemetry,
};
use layer::{Layer, Origin};

pub use daemon::Daemon;
pub use error::ConfigError;
pub use schedule::Schedule;

/// The built-in settings, as TOML.
pub const DEFAULT: &str = include_str!("../config/default.toml");

/// Where a configuration file is looked for when none is named; the first that exists counts.
pub const DEFAULT_FILES: [&str; 2] = ["gannet.toml", "/etc/gannet/gannet.toml"];

/// Every setting, a field for each section. A value that is here is usable.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[storage]`
    pub storage: store::Settings,
    /// `[catalog]`
    pub catalog: catalog::Settings,
    /// `[job]`
    pub job: job::Settings,
    /// `[source]`
    pub source: source::Settings,
    /// `[search]`
    pub search: source::search::Settings,
    /// `[fetch]`
    pub fetch: fetch::Settings,
    /// `[hosts]`
    pub hosts: fetch::Hosts,
    /// `[proxies]`
    pub proxies: fetch::ProxySettings,
    /// `[image]`
    pub image: image::Settings,
    /// `[naming]`
    pub naming: naming::Settings,
    /// `[retention]`
    pub retention: job::Retention,
    /// `[steps]`
    pub steps: step::Settings,
    /// `[renditions]`
    pub renditions: rendition::Settings,
    /// `[daemon]`
    pub daemon: Daemon,
    /// `[api]`
    pub api: api::Settings,
    /// `[events]`
    pub events: notify::Settings,
    /// `[log]`
    pub log: telemetry::Settings,
    /// `[[notify]]`
    #[serde(default)]
    notify: Vec<notify::Written>,
    /// `[[schedule]]`
    #[serde(default)]
    schedule: Vec<schedule::Written>,
    /// What the fields were read from, with the secrets masked.
    #[serde(skip)]
    masked: toml::Table,
}

/// A configuration, and the file that it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The schedules, each with all settings that it goes by.
    pub schedules: Vec<Schedule>,
    /// Who gets events.
    pub receivers: Vec<notify::Receiver>,
    /// The file that was read; `None` when there was none.
    pub file: Option<PathBuf>,
    layers: Vec<Layer>,
}

impl Loaded {
    /// Who is to be told what happens, and how.
    ///
    /// # Errors
    ///
    /// When the certificates of a receiver cannot be used.
    pub fn notify(&self) -> Result<notify::Plan, notify::PlanError> {
        notify::Plan::new(&self.receivers, &self.config.events, &self.config.fetch)
    }

    /// An error about the value of a setting that cannot be used for what only its reader knows. Names the layer
    /// that set it.
    pub fn wrong(&self, section: &str, key: &str, problem: impl Into<String>) -> ConfigError {
        let path = vec![section.to_owned(), key.to_owned()];
        layer::blame(&self.layers, &[path], problem.into())
    }
}

impl Config {
    /// What the engine needs of it.
    pub fn setup(&self) -> job::Setup<'_> {
        job::Setup {
            storage: &self.storage,
            catalog: &self.catalog,
            job: &self.job,
            source: &self.source,
            search: &self.search,
            fetch: &self.fetch,
            hosts: &self.hosts,
            proxies: &self.proxies,
            naming: &self.naming,
            retention: &self.retention,
        }
    }

    /// Reads and merges all layers, and checks the result.
    ///
    /// `file` has to exist; `None` means the first of [`DEFAULT_FILES`] that does. Of `env`, variables
    /// `GANNET_SECTION__KEY` count; another `GANNET_…` is an error, since a setting may be meant. `sets` are pairs of a dotted key (`fetch.retries`,
    /// `hosts."example.org".rate`) and a value; of one key, the last counts. A value from `env` and `sets` is read as
    /// TOML, or as it stands where it is none or a text is wanted, or as items that commas divide where a list is.
    ///
    /// # Errors
    ///
    /// When a layer cannot be read, or does not make a usable configuration.
    pub fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        sets: &[(String, String)],
    ) -> Result<Loaded, ConfigError> {
        let candidates = DEFAULT_FILES.map(Path::new);
        let (layer, file) = match file {
            Some(path) => (Some(read(path)?), Some(path.to_owned())),
            None => first_of(&candidates)?,
        };

        let builtin = Layer::from_text(Origin::Default, DEFAULT)?;
        // In alphabetical order, so that the same environment always gives the same result.
        let mut env: Vec<_> = env
            .filter(|(name, _)| name.starts_with(PREFIX) && !is_foreign(name))
            .collect();
        env.sort();
        let mut variables = Vec::new();
        for (name, value) in env {
            // `fetch.netrc_file` is a setting of its own.
            let is_setting = key_of(&name).is_some_and(|key| builtin.has(&key));
            let (name, value) = match is_setting {
                true => (name, value),
                false => value_in_file(name, value)?,
            };
            let Some(key) = key_of(&name) else {
                let meant = builtin.variable_like(&name);
                return Err(ConfigError::Variable { name, meant });
            };
            variables.push((key, name, value));
        }
        let mut layers = vec![builtin];
        layers.extend(layer);
        for (key, name, value) in variables {
            layers.push(Layer::from_pair(Origin::Variable(name), &key, &value)?);
        }
        for (key, value) in sets {
            refuse_schedule(key, &layers)?;
            layers.push(Layer::from_pair(Origin::Set, key, value)?);
        }

        let (mut config, tree) = layer::merge(&mut layers)?;
        config.masked = masked::masked(tree);
        config.read_secrets(&layers)?;
        if let Err((keys, problem)) = config.check() {
            return Err(layer::blame(&layers, &keys, problem));
        }
        let schedules = config.schedules(&layers)?;
        let receivers = config.receivers(&layers)?;
        Ok(Loaded {
            config,
            schedules,
            receivers,
            file,
            layers,
        })
    }

    /// The settings in force, as TOML, with every secret replaced by `***`.
    pub fn effective_toml(&self) -> String {
        toml::to_string(&self.masked).expect("a table of plain values can always be written")
    }

    /// Lays the settings of each schedule over the common ones.
    fn schedules(&self, layers: &[Layer]) -> Result<Vec<Schedule>, ConfigError> {
        let mut schedules: Vec<Schedule> = Vec::with_capacity(self.schedule.len());
        // Each is laid over the common settings, not over all schedules.
        let common: Vec<Layer> = layers.iter().map(Layer::without_schedules).collect();
        for (at, written) in self.schedule.iter().enumerate() {
            let path = |keys: &[&str]| -> Vec<String> {
                let schedule = ["schedule".to_owned(), at.to_string()];
                let keys = keys.iter().map(|key| (*key).to_owned());
                schedule.into_iter().chain(keys).collect()
            };
            let name = written.name();
            if schedules.iter().any(|other| other.name == name) {
                let problem = format!("there is another schedule called `{name}`");
                return Err(layer::blame(layers, &[path(&["name"])], problem));
            }
            let overrides = written.overrides().map_err(|key| {
                let keys: Vec<&str> = key.iter().map(String::as_str).collect();
                let problem = "belongs to the whole process; set it outside of the schedule";
                layer::blame(layers, &[path(&keys)], problem.to_owned())
            })?;
            let mut layers = [
                common.as_slice(),
                &[Layer::of_schedule(name, layers, overrides)],
            ]
            .concat();
            let (mut config, _) = layer::merge(&mut layers)?;
            config.read_secrets(&layers)?;
            if let Err((keys, problem)) = config.check() {
                return Err(layer::blame(&layers, &keys, problem));
            }
            schedules.push(written.resolved(config));
        }
        Ok(schedules)
    }

    /// What `[[notify]]` means, with what the files hold that it names.
    fn receivers(&self, layers: &[Layer]) -> Result<Vec<notify::Receiver>, ConfigError> {
        let mut receivers: Vec<notify::Receiver> = Vec::with_capacity(self.notify.len());
        for (at, written) in self.notify.iter().enumerate() {
            let blame = |key: &str, problem| {
                let path = ["notify".to_owned(), at.to_string(), key.to_owned()];
                layer::blame(layers, &[path.to_vec(), path[..2].to_vec()], problem)
            };
            let receiver = written
                .resolve()
                .map_err(|(key, problem)| blame(key, problem))?;
            let name = &receiver.name;
            if receivers.iter().any(|other| other.name == *name) {
                let problem =
                    format!("there is another receiver called `{name}`; give each a `name`");
                return Err(blame("name", problem));
            }
            receivers.push(receiver);
        }
        Ok(receivers)
    }

    /// Reads the files that hold passwords and tokens of hosts.
    fn read_secrets(&mut self, layers: &[Layer]) -> Result<(), ConfigError> {
        for (name, host) in self.hosts.iter_mut() {
            let secrets = [
                ("password_file", &host.password_file, &mut host.password),
                ("token_file", &host.token_file, &mut host.token),
            ];
            for (key, file, secret) in secrets {
                let Some(file) = file else { continue };
                let blame = |problem: String| {
                    let path = ["hosts", name, key].map(str::to_owned);
                    layer::blame(layers, &[path.into(), vec!["hosts".to_owned()]], problem)
                };
                if secret.is_some() {
                    let plain = key.trim_end_matches("_file");
                    return Err(blame(format!("cannot be combined with `{plain}`")));
                }
                let text = std::fs::read_to_string(file)
                    .map_err(|error| blame(format!("cannot read `{}`: {error}", file.display())))?;
                *secret = Some(text.trim_end_matches(['\r', '\n']).to_owned().into());
            }
        }
        Ok(())
    }

    /// The rules that span keys. An error has the paths to the keys, and what is wrong with them.
    fn check(&self) -> Result<(), (Vec<Vec<String>>, String)> {
        let wrong = |section: &str, keys: &[&str], problem: &str| {
            let path = |key: &&str| vec![section.to_owned(), (*key).to_owned()];
            Err((keys.iter().map(path).collect(), problem.to_owned()))
        };
        let (fetch, image) = (&self.fetch, &self.image);
        if self.storage.root.as_os_str().is_empty() {
            return wrong(
                "storage",
                &["root"],
                "is empty; write the folder for the files, such as `.` or \"downloads\"",
            );
        }
        if self.source.max_bytes.as_u64() == 0 {
            return wrong("source", &["max_bytes"], "leaves no room for a list");
        }
        if fetch.backoff > fetch.backoff_max {
            return wrong(
                "fetch",
                &["backoff", "backoff_max"],
                "`backoff` is longer than `backoff_max`",
            );
        }
        if fetch.max_header_bytes.as_u64() == 0 {
            return wrong("fetch", &["max_header_bytes"], "leaves no room for headers");
        }
        if fetch.max_bytes.as_u64() == 0 {
            return wrong("fetch", &["max_bytes"], "leaves no room for a file");
        }
        if matches!(fetch.proxy, fetch::ProxySetting::Url(_)) && self.proxies.is_configured() {
            let path = |section: &str, key: &str| vec![section.to_owned(), key.to_owned()];
            let keys = ["urls", "file", "lists"].map(|key| path("proxies", key));
            let keys = std::iter::once(path("fetch", "proxy")).chain(keys);
            return Err((
                keys.collect(),
                "names one proxy, and `[proxies]` a pool of them; leave one of the two away"
                    .to_owned(),
            ));
        }
        if image.max_bytes < image.min_bytes {
            return wrong(
                "image",
                &["max_bytes", "min_bytes"],
                "`max_bytes` is less than `min_bytes`",
            );
        }
        if let Some(problem) = self.catalog.problem() {
            return wrong("catalog", &["url"], &problem);
        }
        if let Some((key, problem)) = self.steps.problem() {
            let key: Vec<&str> = key.iter().map(String::as_str).collect();
            let path = ["steps"].iter().chain(&key);
            return Err((
                vec![path.map(|key| (*key).to_owned()).collect()],
                problem.to_owned(),
            ));
        }
        if self.renditions.max_bytes.as_u64() == 0 {
            return wrong("renditions", &["max_bytes"], "leaves no room for a picture");
        }
        if let Some((keys, problem)) = self.api.problem() {
            return wrong("api", keys, problem);
        }
        if let Some((name, key, problem)) = self.hosts.group_problem() {
            let path = ["hosts", &name, key].map(str::to_owned);
            // A name may be spelled differently in the file, such as `EXAMPLE.org`.
            return Err((vec![path.into(), vec!["hosts".to_owned()]], problem));
        }
        for (name, host) in self.hosts.iter() {
            let (key, problem) = if host.password.is_some() && host.user.is_none() {
                ("password", "needs `user` beside it")
            } else if host.token.is_some() && host.user.is_some() {
                ("token", "cannot be combined with `user`")
            } else if host.token.is_some() && host.auth.is_some() {
                (
                    "auth",
                    "says how `user` and `password` are sent, and cannot be combined with `token`",
                )
            } else if host.max_bytes.is_some_and(|most| most.as_u64() == 0) {
                ("max_bytes", "leaves no room for a file")
            } else {
                continue;
            };
            let path = ["hosts", name, key].map(str::to_owned);
            // A name may be written otherwise than it is used: `EXAMPLE.org`.
            let section = vec!["hosts".to_owned()];
            return Err((vec![path.into(), section], problem.to_owned()));
        }
        Ok(())
    }
}

/// Refuses `--set schedule.cats.album=…`: schedules are a list, which is set as a whole.
fn refuse_schedule(key: &str, layers: &[Layer]) -> Result<(), ConfigError> {
    let named = key
        .strip_prefix("schedule.")
        .or_else(|| key.strip_prefix("notify."));
    let names = Layer::schedules(layers);
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let is_name = names.iter().any(|name| name == first);
    if named.is_none() && !is_name {
        return Ok(());
    }
    let rest = match is_name {
        true => rest,
        false => rest.split_once('.').map_or("", |(_, key)| key),
    };
    // What a schedule does not set itself, it takes from the common settings.
    let common = match rest {
        "" => "KEY".to_owned(),
        "album" | "kind" | "deadline" | "max_failures" => format!("job.{rest}"),
        key => key.to_owned(),
    };
    Err(ConfigError::Value {
        place: "`--set`".to_owned(),
        key: key.to_owned(),
        problem: format!(
            "a single schedule or receiver is changed in the settings file; `--set {common}=…` holds for all schedules that do not set it themselves"
        ),
    })
}

/// What variables that hold settings begin with.
const PREFIX: &str = "GANNET_";

/// Whether a variable is for somebody else: the tests, or whoever looks for a Kubernetes service called `gannet`.
fn is_foreign(variable: &str) -> bool {
    const TESTS: [&str; 5] = [
        "GANNET_CRASH_KILLS",
        "GANNET_CRASH_SEED",
        "GANNET_LONG_TESTS",
        "GANNET_REQUIRE_SERVICES",
        "GANNET_SOAK_SECONDS",
    ];
    TESTS.contains(&variable)
        || fault::COMPILED_IN && variable == fault::VARIABLE
        || variable.starts_with("GANNET_SERVICE_")
        || variable.starts_with("GANNET_PORT")
}

/// `fetch.per_host` for `GANNET_FETCH__PER_HOST`; `None` for variables that mean no setting.
fn key_of(variable: &str) -> Option<String> {
    let name = variable.strip_prefix(PREFIX)?;
    name.contains("__")
        .then(|| name.to_ascii_lowercase().replace("__", "."))
}

/// A variable `GANNET_SECTION__KEY_FILE` names a file that holds the value, as secrets do that others hand to services:
/// what it means, without a line break at its end.
fn value_in_file(name: String, value: String) -> Result<(String, String), ConfigError> {
    let Some(setting) = name
        .strip_suffix("_FILE")
        .filter(|name| name.contains("__"))
    else {
        return Ok((name, value));
    };
    let path =
        LocalPath::new(&value).map_err(|error| std::io::Error::new(ErrorKind::InvalidInput, error));
    let text = path.and_then(std::fs::read_to_string);
    let text = text.map_err(|source| ConfigError::ReadValue {
        name: name.clone(),
        path: value.into(),
        source,
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok((setting.to_owned(), text.to_owned()))
}

fn read(path: &Path) -> Result<Layer, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Layer::from_text(Origin::File(path.to_owned()), &text),
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn first_of(candidates: &[&Path]) -> Result<(Option<Layer>, Option<PathBuf>), ConfigError> {
    for path in candidates {
        match read(path) {
            Err(ConfigError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            layer => return Ok((Some(layer?), Some(path.to_path_buf()))),
        }
    }
    Ok((None, None))
}

#[cfg(test)]
mod tests;
