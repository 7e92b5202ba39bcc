//! A directory of manifests, watched. In: a path. Out: the text of every manifest below it, and a word when something
//! changed; a slow poll by the caller repairs what the watch missed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

/// Larger files are refused, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Deepest folder that is looked into: a link that points upwards ends here.
const MAX_DEPTH: usize = 16;
/// A change is looked at when nothing more happened for so long,
const QUIET: Duration = Duration::from_millis(150);
/// and after this at the latest.
const LATEST: Duration = Duration::from_secs(1);

/// Text of each manifest by its path within the directory, or why it cannot be read.
pub type Files = BTreeMap<String, Result<String, String>>;

/// The directory itself cannot be read. What is registered stays.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot read the directory of resources '{}'", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("reading the directory of resources was cut off")]
    Interrupted,
}

/// A watched directory.
pub struct Directory {
    root: PathBuf,
    changed: Arc<Notify>,
    /// `None` while it cannot be watched.
    watcher: Mutex<Option<RecommendedWatcher>>,
}

impl Directory {
    /// Nothing is read yet; a directory that does not exist is looked for again at each reading.
    pub fn new(root: PathBuf) -> Self {
        Self { root, changed: Arc::new(Notify::new()), watcher: Mutex::new(None) }
    }

    /// Reads every `*.yaml`, `*.yml` and `*.json` below the directory. Hidden files and folders are left out.
    ///
    /// # Errors
    /// The directory does not exist or cannot be listed.
    pub async fn files(&self) -> Result<Files, SourceError> {
        let root = self.root.clone();
        self.watch();
        let read = move || {
            let mut files = Files::new();
            match collect(&root, &root, 0, &mut files) {
                Ok(()) => Ok(files),
                Err(source) => Err(SourceError::Unreadable { path: root, source }),
            }
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| SourceError::Interrupted)?;
        if read.is_err() {
            // A directory that is made anew needs a new watch.
            *self.slot() = None;
        }
        read
    }

    /// Waits for a change, and until the writing has ended.
    pub async fn changed(&self) {
        self.changed.notified().await;
        let settle = async { while timeout(QUIET, self.changed.notified()).await.is_ok() {} };
        // Cut off by the deadline: somebody writes without end, and what is there is looked at anyway.
        let _ = timeout(LATEST, settle).await;
    }

    fn watch(&self) {
        let mut slot = self.slot();
        if slot.is_some() || !self.root.is_dir() {
            return;
        }
        let changed = self.changed.clone();
        let on_event = move |event: notify::Result<Event>| {
            // Our own reading is no change.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                changed.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(on_event)
            .and_then(|mut w| w.watch(&self.root, RecursiveMode::Recursive).map(|()| w));
        match watcher {
            Ok(watcher) => *slot = Some(watcher),
            Err(error) => warn!(%error, "cannot watch the directory of resources: changes are seen by polling"),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<RecommendedWatcher>> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect(root: &Path, folder: &Path, depth: usize, files: &mut Files) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        // Follows links: a mounted ConfigMap consists of them.
        let Ok(about) = fs::metadata(&path) else { continue };
        if about.is_dir() {
            if depth < MAX_DEPTH {
                collect(root, &path, depth + 1, files)?;
            }
        } else if is_manifest(&path) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.insert(name, read(&path, about.len()));
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
}

fn read(path: &Path, size: u64) -> Result<String, String> {
    if size > MAX_FILE {
        return Err(format!("it has {size} bytes, more than {MAX_FILE}: split it"));
    }
    fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finds_manifests_in_folders_and_says_when_they_change() {
        let root = std::env::temp_dir().join(format!("cornjacket-directory-{}", std::process::id()));
        fs::create_dir_all(root.join("nested")).expect("writable");
        fs::create_dir_all(root.join(".hidden")).expect("writable");
        for (name, text) in [("a.yaml", "a"), ("nested/b.json", "b"), ("c.txt", "c"), (".hidden/d.yaml", "d")] {
            fs::write(root.join(name), text).expect("writable");
        }
        let directory = Directory::new(root.clone());
        let names = |files: Files| files.into_keys().collect::<Vec<_>>();
        assert_eq!(names(directory.files().await.expect("readable")), ["a.yaml", "nested/b.json"]);

        let change = async {
            fs::write(root.join("nested/e.yml"), "e").expect("writable");
            directory.changed().await;
        };
        timeout(Duration::from_secs(10), change).await.expect("a change is noticed");
        assert_eq!(names(directory.files().await.expect("readable")), ["a.yaml", "nested/b.json", "nested/e.yml"]);

        fs::remove_dir_all(&root).expect("removable");
        assert!(directory.files().await.is_err(), "a missing directory is an error, not an empty one");
    }
}
