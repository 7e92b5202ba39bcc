//! A watch and a controller for each of the four kinds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crds::registration::ResourceKey;
use futures::StreamExt as _;
use futures::stream::poll_fn;
use kube::runtime::controller::{Config, Error};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::warn;

use super::kinds::{Declarable, Guarded, Matter};
use super::reconcile::{Shared, failed, reconcile};

/// Reconciliations of one kind at the same time.
const CONCURRENCY: u16 = 8;
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// For so long after a change nothing is done, in case another follows.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// Objects that wait to be looked at; who has news of more waits as well.
const TOUCHED: usize = 1024;

/// Watches one kind, and reconciles its objects when they change and when somebody touches them.
pub struct Watch<K: Declarable> {
    api: Api<Guarded<K>>,
    reader: Store<Guarded<K>>,
    writer: reflector::store::Writer<Guarded<K>>,
    touch: mpsc::Sender<ResourceKey>,
    touched: mpsc::Receiver<ResourceKey>,
}

impl<K: Declarable> Watch<K> {
    pub fn new(client: Client, namespace: &str) -> Self {
        let (reader, writer) = reflector::store();
        let (touch, touched) = mpsc::channel(TOUCHED);
        Self { api: Api::namespaced(client, namespace), reader, writer, touch, touched }
    }

    /// Takes the keys of objects that there is something new to say about.
    pub fn touch(&self) -> mpsc::Sender<ResourceKey> {
        self.touch.clone()
    }

    pub fn store(&self) -> Store<Guarded<K>> {
        self.reader.clone()
    }

    /// Starts watching: `changed` is told of every change that a look depends on, removals included, and `listed` gets a permit when the store has
    /// all that there is. (Who waits for a store as its controller does may never be woken.)
    pub fn start(self, tasks: &mut JoinSet<()>, changed: &Arc<Notify>, listed: &Arc<Semaphore>, shared: &Arc<Shared>) {
        let (changed, listed, mut touched) = (changed.clone(), listed.clone(), self.touched);
        let (mut is_listed, mut known) = (false, HashMap::new());
        let config = watcher::Config::default().page_size(PAGE);
        let objects = watcher(self.api, config)
            .default_backoff()
            .modify(Matter::keep)
            .reflect(self.writer)
            .inspect(move |event| {
                let Ok(event) = event else { return };
                if matches!(event, watcher::Event::InitDone) && !std::mem::replace(&mut is_listed, true) {
                    listed.add_permits(1);
                }
                if is_news(event, &mut known) {
                    changed.notify_one();
                }
            })
            .applied_objects();
        let reference = |key: ResourceKey| ObjectRef::new(&key.name).within(&key.namespace);
        let controller = Controller::for_stream(objects, self.reader)
            .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
            .reconcile_on(poll_fn(move |context| touched.poll_recv(context)).map(reference))
            .run(reconcile::<K>, failed::<K>, shared.clone());
        tasks.spawn(controller.for_each(|result| async move {
            match result {
                // Failures are said where they are handled; what is gone needs nothing.
                Ok(_) | Err(Error::ReconcilerFailed(..) | Error::ObjectNotFound(_)) => {}
                Err(error) => warn!(kind = %K::KIND, %error, "cannot watch: trying again until it can"),
            }
        }));
    }
}

/// Whether a look might find something new: what we write ourselves, statuses and finalizers, is no news.
fn is_news<K: Declarable>(event: &watcher::Event<Guarded<K>>, known: &mut HashMap<String, Matter>) -> bool {
    match event {
        watcher::Event::Apply(object) => {
            let matter = Matter::of(object);
            known.insert(object.name_any(), matter.clone()) != Some(matter)
        }
        watcher::Event::Delete(object) => {
            known.remove(&object.name_any());
            true
        }
        watcher::Event::Init => {
            known.clear();
            false
        }
        watcher::Event::InitApply(object) => {
            known.insert(object.name_any(), Matter::of(object));
            false
        }
        watcher::Event::InitDone => true,
    }
}
