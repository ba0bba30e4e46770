//! A disk that can lose its power at any moment, fail, and be full.
//!
//! [`SimulatedDisk`] watches what a thread does through `tally-storage` to the real files below one directory (feature
//! `faults`), and knows what a power cut would leave of them: of each file the bytes and the size as of its last sync, any
//! of the 4 KiB pages that were changed since (a store through a map is found by comparing), and some size in between; of
//! each directory the names as of its last sync, and some of the changes since. What was written twice between two
//! syncs may be found in the older version too, if the disk was told to [`SimulatedDisk::write_back`] meanwhile. After a failed
//! sync some of the pages are lost to every later sync, as Linux does it.
//!
//! ```no_run
//! # use tally_testkit::{seed::Seed, simulated_disk::{Action, Names, SimulatedDisk, new_root}};
//! let root = new_root("example");
//! let disk = SimulatedDisk::new(&root, "boot 1");   // what lies below `root` already counts as synced
//! let watching = disk.install();                    // this thread, until it is dropped
//! disk.on_operation(|event| if event.is_sync() { Action::Capture } else { Action::Go });
//! // … use `DataDir::open(&root)`, journals, shards: all on this thread …
//! for capture in disk.take_captures() {
//!     let image = new_root("example-image");
//!     capture.moment.power_cut(&image, &mut Seed::new(7), Names::Any);   // or: capture.moment.killed(&image)
//!     // … open `image` under a `SimulatedDisk::new(&image, "boot 2")`, recover, check …
//! }
//! drop(watching);
//! ```
//!
//! - The hook sees each operation *before* it is done ([`Event::number`] counts those that change something) and answers:
//!   go on; capture the moment; capture it with a part of this write in place; fail; write a part only and fail. A hook that
//!   wants the moment after an operation captures at the next one, or calls [`SimulatedDisk::capture`] by itself.
//! - [`SimulatedDisk::set_space`] makes the disk full at a number of bytes, counted in pages of the files that have a name.
//! - [`SimulatedDisk::power_off`] lets everything fail from then on: what is dropped later can't touch the files.
//! - [`SimulatedDisk::keep_trace`] writes down every operation, to be compared or printed.
//! - Moments are values: they can be made into as many images as wanted, later too.

use crate::seed::Seed;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use tally_storage::faults::{self, Installed, Kind, Observer, Operation, Verdict};

/// What a disk writes whole or not at all.
pub const PAGE: usize = 4096;

/// A new directory, in memory where the system has a place for that. The caller removes it.
pub fn new_root(name: &str) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let root = parent.join(format!("tally-disk-{}-{name}-{number}", std::process::id()));
    fs::create_dir_all(&root).expect("a directory for a disk");
    root
}

/// A directory of [`new_root`] that is removed with the value.
#[derive(Debug)]
pub struct Root(PathBuf);

impl Root {
    /// A new one.
    pub fn new(name: &str) -> Root {
        Root(new_root(name))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _kept = fs::remove_dir_all(&self.0).is_err();
    }
}

/// An operation that is about to be done.
#[derive(Clone, Debug)]
pub struct Event {
    /// How many operations that change something came before it.
    pub number: u64,
    /// What it is, in words that are the same in every run.
    pub text: String,
    /// The name it was opened or is named by, below the root.
    pub path: String,
    /// What kind it is: the variant's name.
    pub kind: &'static str,
    /// Bytes of a write.
    pub bytes: usize,
}

impl Event {
    /// Whether it brings something to the disk.
    pub fn is_sync(&self) -> bool {
        matches!(self.kind, "sync" | "sync-directory" | "sync-file-system")
    }
}

/// What happens to an operation.
#[derive(Debug)]
pub enum Action {
    /// It is done.
    Go,
    /// The moment before it is captured, then it is done.
    Capture,
    /// The moment is captured at which so many bytes of this write are in place, then it is done.
    CaptureTorn(usize),
    /// It fails.
    Fail(io::ErrorKind),
    /// So many bytes are written, then it fails.
    Short(usize, io::ErrorKind),
    /// It is said to be done, and is not: for writes, cuts and syncs. To see whether a mistake would be found.
    Undo,
}

/// A moment, and what was about to be done.
#[derive(Debug)]
pub struct Capture {
    /// What was about to be done.
    pub before: Event,
    /// What lay on the disk and in memory.
    pub moment: Moment,
}

type Hook = Box<dyn FnMut(&Event) -> Action>;

/// The disk.
pub struct SimulatedDisk {
    root: PathBuf,
    boot_id: String,
    state: RefCell<State>,
    hook: RefCell<Option<Hook>>,
}

impl std::fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimulatedDisk({})", self.root.display())
    }
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    root: u64,
    /// Changes of names since they were last synced, in order.
    pending: Vec<Pending>,
    operations: u64,
    captures: Vec<Capture>,
    trace: Option<Vec<String>>,
    space: Option<u64>,
    is_off: bool,
    /// The node that the operation under way is about.
    subject: Option<u64>,
    /// The bytes that the operation under way is not to change.
    undo: Option<Vec<u8>>,
}

enum Node {
    File(FileNode),
    Directory {
        /// Kept open, so that its number is not used again.
        _handle: File,
        synced: BTreeMap<String, u64>,
        current: BTreeMap<String, u64>,
    },
}

struct FileNode {
    /// Kept open, so that its contents can be read when it has no name, and its number is not used again.
    handle: File,
    synced: Rc<Vec<u8>>,
    /// Older versions of pages that reached the disk by themselves.
    written: BTreeMap<usize, Vec<u8>>,
    /// Sizes since the last sync.
    sizes: BTreeSet<usize>,
    /// Pages that a failed sync has lost, as they were.
    lost: BTreeMap<usize, Vec<u8>>,
    allocated: u64,
}

#[derive(Clone, Debug)]
enum Pending {
    Link {
        directory: u64,
        name: String,
        node: u64,
    },
    Unlink {
        directory: u64,
        name: String,
        node: u64,
    },
    Rename {
        from: (u64, String),
        to: (u64, String),
        node: u64,
    },
}

impl Pending {
    fn is_in(&self, wanted: u64) -> bool {
        match self {
            Pending::Link { directory, .. } | Pending::Unlink { directory, .. } => {
                *directory == wanted
            }
            Pending::Rename { from, to, .. } => from.0 == wanted || to.0 == wanted,
        }
    }

    fn node(&self) -> u64 {
        match self {
            Pending::Link { node, .. }
            | Pending::Unlink { node, .. }
            | Pending::Rename { node, .. } => *node,
        }
    }

    fn apply(&self, names: &mut BTreeMap<u64, BTreeMap<String, u64>>) {
        match self {
            Pending::Link {
                directory,
                name,
                node,
            } => {
                names
                    .entry(*directory)
                    .or_default()
                    .insert(name.clone(), *node);
            }
            Pending::Unlink {
                directory,
                name,
                node,
            } => {
                let names = names.entry(*directory).or_default();
                if names.get(name) == Some(node) {
                    names.remove(name);
                }
            }
            Pending::Rename { from, to, node } => {
                let old = names.entry(from.0).or_default();
                if old.get(&from.1) == Some(node) {
                    old.remove(&from.1);
                }
                names.entry(to.0).or_default().insert(to.1.clone(), *node);
            }
        }
    }
}

/// Which changes of names a power cut leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// The first of them, whatever directory they are in: file systems with one ordered journal of their metadata.
    Ordered,
    /// Any of them: the worst that is allowed. A rename happens or does not.
    Any,
}

/// What lay on the disk and in memory at a moment.
#[derive(Clone, Debug)]
pub struct Moment {
    boot_id: String,
    files: BTreeMap<u64, Pages>,
    synced: BTreeMap<u64, BTreeMap<String, u64>>,
    current: BTreeMap<u64, BTreeMap<String, u64>>,
    pending: Vec<Pending>,
    root: u64,
}

#[derive(Clone, Debug)]
struct Pages {
    synced: Rc<Vec<u8>>,
    written: BTreeMap<usize, Vec<u8>>,
    current: Vec<u8>,
    sizes: BTreeSet<usize>,
}

impl SimulatedDisk {
    /// A disk of what lies below `root`, all of which counts as synced. `boot_id` is the run of the kernel that a data
    /// directory sees: another one than before stands for a power cut.
    pub fn new(root: &Path, boot_id: &str) -> Rc<SimulatedDisk> {
        let mut state = State {
            root: number_of(root).expect("the root is there"),
            ..State::default()
        };
        state.take_in(root);
        Rc::new(SimulatedDisk {
            root: root.to_owned(),
            boot_id: boot_id.to_owned(),
            state: RefCell::new(state),
            hook: RefCell::new(None),
        })
    }

    /// Has this thread watched until the value is dropped.
    pub fn install(self: &Rc<Self>) -> Installed {
        faults::install(Rc::clone(self) as Rc<dyn Observer>)
    }

    /// Asks `hook` before each operation that changes something.
    pub fn on_operation(&self, hook: impl FnMut(&Event) -> Action + 'static) {
        *self.hook.borrow_mut() = Some(Box::new(hook));
    }

    /// Asks nobody any more.
    pub fn let_be(&self) {
        *self.hook.borrow_mut() = None;
    }

    /// The moments captured since the last call.
    pub fn take_captures(&self) -> Vec<Capture> {
        std::mem::take(&mut self.state.borrow_mut().captures)
    }

    /// How many operations that change something were begun.
    pub fn operations(&self) -> u64 {
        self.state.borrow().operations
    }

    /// This moment.
    pub fn capture(&self) -> Moment {
        self.state.borrow().moment(&self.boot_id, None)
    }

    /// Makes the disk full when its files have so many bytes, or never.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state.borrow_mut().space = bytes;
    }

    /// Bytes that the files take.
    pub fn used(&self) -> u64 {
        self.state.borrow().used()
    }

    /// Every operation fails from now on.
    pub fn power_off(&self) {
        self.state.borrow_mut().is_off = true;
    }

    /// Keeps a line for each operation.
    pub fn keep_trace(&self) {
        self.state.borrow_mut().trace = Some(Vec::new());
    }

    /// The lines kept.
    pub fn trace(&self) -> Vec<String> {
        self.state.borrow().trace.clone().unwrap_or_default()
    }

    /// Brings some changed pages of some files to the disk, unasked: what a power cut may find from then on, even when
    /// they are written again.
    pub fn write_back(&self, seed: &mut Seed) {
        for node in self.state.borrow_mut().nodes.values_mut() {
            let Node::File(file) = node else { continue };
            if seed.percent(50) {
                continue;
            }
            let current = contents(&file.handle);
            let synced = Rc::clone(&file.synced);
            for page in changed_pages(&synced, &current) {
                if seed.percent(40) && !file.is_lost(page, &current) {
                    file.written.insert(page, page_of(&current, page).to_vec());
                }
            }
            file.sizes.insert(current.len());
        }
    }

    fn event(&self, operation: &Operation<'_>, number: u64) -> Event {
        let path = below(&self.root, operation.path);
        let (kind, rest, bytes) = match operation.kind {
            Kind::Open => ("open", String::new(), 0),
            Kind::Create => ("create", String::new(), 0),
            Kind::OpenOrCreate => ("open-or-create", String::new(), 0),
            Kind::Write { at, bytes } => {
                let sum = crc32c::crc32c(bytes);
                let rest = format!(" at {at}, {} bytes, sum {sum:08x}", bytes.len());
                ("write", rest, bytes.len())
            }
            Kind::Read => ("read", String::new(), 0),
            Kind::Reserve { from, upto } => ("reserve", format!(" {from}..{upto}"), 0),
            Kind::Allocate { from, upto } => ("allocate", format!(" {from}..{upto}"), 0),
            Kind::Truncate { size } => ("truncate", format!(" at {size}"), 0),
            Kind::SetModified => ("set-modified", String::new(), 0),
            Kind::Sync => ("sync", String::new(), 0),
            Kind::SyncFileSystem => ("sync-file-system", String::new(), 0),
            Kind::SyncDirectory => ("sync-directory", String::new(), 0),
            Kind::MakeDirectory => ("make-directory", String::new(), 0),
            Kind::RemoveFile => ("remove-file", String::new(), 0),
            Kind::RemoveDirectory => ("remove-directory", String::new(), 0),
            Kind::Rename { to } => ("rename", format!(" to {}", below(&self.root, to)), 0),
        };
        Event {
            number,
            text: format!("{kind} {path}{rest}"),
            path,
            kind,
            bytes,
        }
    }

    fn ask(&self, operation: &Operation<'_>, event: Event) -> Verdict {
        let action = match &mut *self.hook.borrow_mut() {
            Some(hook) => hook(&event),
            None => Action::Go,
        };
        let mut state = self.state.borrow_mut();
        let torn = match action {
            Action::Go => return state.charge(operation),
            Action::Undo => {
                let bytes = state.file(operation).map(|file| contents(&file.handle));
                state.undo = Some(bytes.unwrap_or_default());
                return Verdict::Go;
            }
            Action::Capture => None,
            Action::CaptureTorn(some) => torn_write(operation, some),
            Action::Fail(kind) => {
                if matches!(operation.kind, Kind::Sync) {
                    state.lose_pages(operation);
                }
                return Verdict::Fail(io::Error::new(kind, "the disk was told to fail"));
            }
            Action::Short(some, kind) => {
                let error = io::Error::new(kind, "the disk was told to stop half-way");
                return match operation.kind {
                    Kind::Write { bytes, .. } => Verdict::Short(some.min(bytes.len()), error),
                    _ => Verdict::Fail(error),
                };
            }
        };
        let moment = state.moment(&self.boot_id, torn);
        state.captures.push(Capture {
            before: event,
            moment,
        });
        state.charge(operation)
    }
}

type Torn<'a> = (u64, u64, &'a [u8]);

fn torn_write<'a>(operation: &Operation<'a>, some: usize) -> Option<Torn<'a>> {
    match (operation.kind, operation.file) {
        (Kind::Write { at, bytes }, Some(file)) => {
            let node = file.metadata().expect("an open file").ino();
            Some((node, at, &bytes[..some.min(bytes.len())]))
        }
        _ => None,
    }
}

impl Observer for SimulatedDisk {
    fn before(&self, operation: &Operation<'_>) -> Verdict {
        if !operation.path.starts_with(&self.root) {
            return Verdict::Go;
        }
        let number = {
            let mut state = self.state.borrow_mut();
            if state.is_off {
                return Verdict::Fail(io::Error::other("the power is off"));
            }
            if !operation.kind.changes() {
                return Verdict::Go;
            }
            state.subject = match operation.kind {
                Kind::RemoveFile | Kind::RemoveDirectory | Kind::Rename { .. } => {
                    number_of(operation.path)
                }
                _ => None,
            };
            state.undo = None;
            state.operations += 1;
            state.operations - 1
        };
        let event = self.event(operation, number);
        if let Some(trace) = &mut self.state.borrow_mut().trace {
            trace.push(event.text.clone());
        }
        self.ask(operation, event)
    }

    fn after(&self, operation: &Operation<'_>, error: Option<&io::Error>) {
        let is_ours = operation.path.starts_with(&self.root) && operation.kind.changes();
        let mut state = self.state.borrow_mut();
        if !is_ours || state.is_off {
            return;
        }
        match state.undo.take() {
            None => state.note(operation, error.is_none()),
            Some(bytes) => {
                let is_sync = matches!(operation.kind, Kind::Sync | Kind::SyncDirectory);
                if !is_sync && let Some(file) = state.file(operation) {
                    file.put_back(&bytes);
                }
            }
        }
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.boot_id.clone())
    }
}

impl State {
    /// Takes in what lies below `path` as synced.
    fn take_in(&mut self, path: &Path) {
        let number = number_of(path).expect("it was listed");
        if !path.is_dir() {
            let file = FileNode::new(path);
            self.nodes.insert(number, Node::File(file));
            return;
        }
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path).expect("a directory") {
            let path = entry.expect("an entry").path();
            names.insert(name_of(&path), number_of(&path).expect("it was listed"));
            self.take_in(&path);
        }
        let directory = Node::Directory {
            _handle: File::open(path).expect("a directory"),
            synced: names.clone(),
            current: names,
        };
        self.nodes.insert(number, directory);
    }

    fn names(&mut self, directory: u64) -> &mut BTreeMap<String, u64> {
        match self.nodes.get_mut(&directory) {
            Some(Node::Directory { current, .. }) => current,
            _ => panic!("operations are in directories that were seen"),
        }
    }

    fn file(&mut self, operation: &Operation<'_>) -> Option<&mut FileNode> {
        let number = operation.file?.metadata().ok()?.ino();
        match self.nodes.get_mut(&number) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    fn change(&mut self, change: Pending) {
        match &change {
            Pending::Link {
                directory,
                name,
                node,
            } => {
                self.names(*directory).insert(name.clone(), *node);
            }
            Pending::Unlink {
                directory, name, ..
            } => {
                self.names(*directory).remove(name);
            }
            Pending::Rename { from, to, node } => {
                self.names(from.0).remove(&from.1);
                self.names(to.0).insert(to.1.clone(), *node);
            }
        }
        self.pending.push(change);
    }

    /// Writes down what an operation did.
    fn note(&mut self, operation: &Operation<'_>, done: bool) {
        let path = operation.path;
        match operation.kind {
            Kind::Open | Kind::Read => {}
            Kind::Create | Kind::OpenOrCreate | Kind::MakeDirectory if done => self.note_new(path),
            Kind::Write { at, bytes } => {
                let end = size_of(at) + bytes.len();
                if let Some(file) = self.file(operation) {
                    let size = file.size();
                    file.sizes.insert(size);
                    // Written again, the same bytes too, a page is one that a sync has to bring to the disk.
                    file.lost.retain(|page, _| {
                        (page + 1) * PAGE <= size_of(at) || page * PAGE >= end.min(size)
                    });
                    file.allocated = file.allocated.max(pages_for(end.min(size)));
                }
            }
            Kind::Reserve { upto, .. } | Kind::Allocate { upto, .. } if done => {
                if let Some(file) = self.file(operation) {
                    let size = file.size();
                    file.sizes.insert(size);
                    file.allocated = file.allocated.max(pages_for(size_of(upto)));
                }
            }
            Kind::Truncate { size } if done => {
                if let Some(file) = self.file(operation) {
                    let size = size_of(size);
                    file.sizes.insert(size);
                    file.allocated = file.allocated.min(pages_for(size));
                }
            }
            Kind::Sync if done => {
                if let Some(file) = self.file(operation) {
                    file.sync();
                }
            }
            Kind::SyncFileSystem if done => self.sync_all(),
            Kind::SyncDirectory if done => {
                let directory = number_of(path).expect("it was synced");
                self.sync_directory(directory);
            }
            Kind::RemoveFile | Kind::RemoveDirectory if done => {
                let (directory, name) = place_of(path);
                let node = self.subject.expect("it was there");
                self.change(Pending::Unlink {
                    directory,
                    name,
                    node,
                });
            }
            Kind::Rename { to } if done => {
                let node = self.subject.expect("it was there");
                self.change(Pending::Rename {
                    from: place_of(path),
                    to: place_of(to),
                    node,
                });
            }
            _ => {}
        }
    }

    fn note_new(&mut self, path: &Path) {
        let node = number_of(path).expect("it was made");
        let (directory, name) = place_of(path);
        if self.names(directory).get(&name) == Some(&node) {
            return;
        }
        let new = if path.is_dir() {
            Node::Directory {
                _handle: File::open(path).expect("a directory"),
                synced: BTreeMap::new(),
                current: BTreeMap::new(),
            }
        } else {
            Node::File(FileNode::empty(path))
        };
        self.nodes.insert(node, new);
        self.change(Pending::Link {
            directory,
            name,
            node,
        });
    }

    /// A synced directory has its names. What a file system with one journal writes before them has no effect here: that
    /// is the ordered kind of image, made from the order of `pending`.
    fn sync_directory(&mut self, directory: u64) {
        if let Some(Node::Directory {
            synced, current, ..
        }) = self.nodes.get_mut(&directory)
        {
            synced.clone_from(current);
        }
        self.pending.retain(|change| !change.is_in(directory));
        self.forget_unnamed();
    }

    fn sync_all(&mut self) {
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.sync(),
                Node::Directory {
                    synced, current, ..
                } => synced.clone_from(current),
            }
        }
        self.pending.clear();
        self.forget_unnamed();
    }

    /// Files that no name leads to, now or after a power cut, are gone.
    fn forget_unnamed(&mut self) {
        let mut named: BTreeSet<u64> = self.pending.iter().map(Pending::node).collect();
        named.insert(self.root);
        for node in self.nodes.values() {
            if let Node::Directory {
                synced, current, ..
            } = node
            {
                named.extend(synced.values().chain(current.values()));
            }
        }
        self.nodes.retain(|number, _| named.contains(number));
    }

    fn named_now(&self) -> BTreeSet<u64> {
        let mut named = BTreeSet::new();
        let mut directories = vec![self.root];
        while let Some(directory) = directories.pop() {
            if let Some(Node::Directory { current, .. }) = self.nodes.get(&directory) {
                named.extend(current.values());
                directories.extend(current.values());
            }
        }
        named
    }

    fn used(&self) -> u64 {
        let named = self.named_now();
        let files = self.nodes.iter().map(|(number, node)| match node {
            Node::File(file) if named.contains(number) => file.allocated,
            _ => 0,
        });
        files.sum()
    }

    /// Whether there is space for an operation.
    fn charge(&mut self, operation: &Operation<'_>) -> Verdict {
        let Some(space) = self.space else {
            return Verdict::Go;
        };
        let upto = match operation.kind {
            Kind::Write { at, bytes } => size_of(at) + bytes.len(),
            Kind::Reserve { upto, .. } | Kind::Allocate { upto, .. } => size_of(upto),
            _ => return Verdict::Go,
        };
        let used = self.used();
        let has = self.file(operation).map_or(0, |file| file.allocated);
        let more = pages_for(upto).saturating_sub(has);
        if used + more <= space || more == 0 {
            return Verdict::Go;
        }
        let full = io::Error::from_raw_os_error(28);
        match operation.kind {
            // What lies in pages that the file has already is written.
            Kind::Write { at, bytes } if at < has => {
                Verdict::Short(size_of(has - at).min(bytes.len()), full)
            }
            _ => Verdict::Fail(full),
        }
    }

    /// After a failed sync the kernel takes pages for written that are not: a later sync leaves them out.
    fn lose_pages(&mut self, operation: &Operation<'_>) {
        if let Some(file) = self.file(operation) {
            let current = contents(&file.handle);
            let synced = Rc::clone(&file.synced);
            for page in changed_pages(&synced, &current).into_iter().step_by(2) {
                file.lost.insert(page, page_of(&current, page).to_vec());
            }
        }
    }

    fn moment(&self, boot_id: &str, torn: Option<Torn<'_>>) -> Moment {
        let mut moment = Moment {
            boot_id: boot_id.to_owned(),
            files: BTreeMap::new(),
            synced: BTreeMap::new(),
            current: BTreeMap::new(),
            pending: self.pending.clone(),
            root: self.root,
        };
        for (number, node) in &self.nodes {
            match node {
                Node::File(file) => {
                    moment.files.insert(*number, file.pages());
                }
                Node::Directory {
                    synced, current, ..
                } => {
                    moment.synced.insert(*number, synced.clone());
                    moment.current.insert(*number, current.clone());
                }
            }
        }
        if let Some((number, at, bytes)) = torn
            && let Some(pages) = moment.files.get_mut(&number)
        {
            let (at, end) = (size_of(at), size_of(at) + bytes.len());
            if pages.current.len() < end {
                pages.current.resize(end, 0);
            }
            pages.current[at..end].copy_from_slice(bytes);
            pages.sizes.insert(pages.current.len());
        }
        moment
    }
}

impl FileNode {
    fn new(path: &Path) -> FileNode {
        let mut file = FileNode::empty(path);
        file.sync();
        file.allocated = pages_for(file.size());
        file
    }

    fn empty(path: &Path) -> FileNode {
        FileNode {
            handle: File::options()
                .read(true)
                .write(true)
                .open(path)
                .expect("a file that is there"),
            synced: Rc::default(),
            written: BTreeMap::new(),
            sizes: BTreeSet::new(),
            lost: BTreeMap::new(),
            allocated: 0,
        }
    }

    fn put_back(&self, bytes: &[u8]) {
        self.handle
            .set_len(0)
            .and_then(|()| self.handle.write_all_at(bytes, 0))
            .expect("a file of ours");
    }

    fn size(&self) -> usize {
        size_of(self.handle.metadata().expect("an open file").len())
    }

    fn is_lost(&self, page: usize, current: &[u8]) -> bool {
        self.lost
            .get(&page)
            .is_some_and(|lost| lost == page_of(current, page))
    }

    fn sync(&mut self) {
        let mut bytes = contents(&self.handle);
        let kept: Vec<usize> = self.lost.keys().copied().collect();
        for page in kept {
            if self.is_lost(page, &bytes) {
                let old = page_of(&self.synced, page).to_vec();
                let begin = page * PAGE;
                let end = (begin + PAGE).min(bytes.len());
                if begin < end {
                    bytes[begin..end].fill(0);
                    let some = old.len().min(end - begin);
                    bytes[begin..begin + some].copy_from_slice(&old[..some]);
                }
            } else {
                self.lost.remove(&page);
            }
        }
        self.synced = Rc::new(bytes);
        self.written.clear();
        self.sizes.clear();
    }

    fn pages(&self) -> Pages {
        let mut current = contents(&self.handle);
        if !self.lost.is_empty() {
            // What only memory has, and no sync brings to the disk, a power cut does not find.
            for page in self.lost.keys() {
                if self.is_lost(*page, &current) && page * PAGE < current.len() {
                    let (begin, end) = (page * PAGE, ((page + 1) * PAGE).min(current.len()));
                    let old = page_of(&self.synced, *page).to_vec();
                    current[begin..end].fill(0);
                    let some = old.len().min(end - begin);
                    current[begin..begin + some].copy_from_slice(&old[..some]);
                }
            }
        }
        Pages {
            synced: Rc::clone(&self.synced),
            written: self.written.clone(),
            current,
            sizes: self.sizes.clone(),
        }
    }
}

impl Moment {
    /// The run of the kernel that it was in: a kill leaves it, a power cut does not.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// What a kill leaves in `into`, an empty directory: everything.
    pub fn killed(&self, into: &Path) {
        let file = |number: u64| self.files[&number].current.clone();
        write_directory(into, self.root, &self.current, &file);
    }

    /// What a power cut may leave in `into`, an empty directory; `seed` chooses.
    pub fn power_cut(&self, into: &Path, seed: &mut Seed, names: Names) {
        // All, none, and everything between.
        let mut chance = || [0, 5, 30, 50, 70, 95, 100][seed.index(7)];
        let (pages_kept, names_kept) = (chance(), chance());
        let mut tree = self.synced.clone();
        let upto = seed.index(self.pending.len() + 1);
        for (at, change) in self.pending.iter().enumerate() {
            let is_kept = match names {
                Names::Ordered => at < upto,
                Names::Any => seed.percent(names_kept),
            };
            if is_kept {
                change.apply(&mut tree);
            }
        }
        let files: BTreeMap<u64, Vec<u8>> = self
            .files
            .iter()
            .map(|(number, pages)| (*number, pages.choose(seed, pages_kept)))
            .collect();
        write_directory(into, self.root, &tree, &|number| files[&number].clone());
    }

    /// What a power cut leaves that keeps only what was synced.
    pub fn only_synced(&self, into: &Path) {
        let file = |number: u64| self.files[&number].synced.to_vec();
        write_directory(into, self.root, &self.synced, &file);
    }
}

impl Pages {
    fn choose(&self, seed: &mut Seed, pages_kept: u64) -> Vec<u8> {
        if *self.synced == self.current {
            return self.current.clone();
        }
        let size = self.choose_size(seed);
        let mut bytes = vec![0; size];
        for page in 0..size.div_ceil(PAGE) {
            let (old, new) = (page_of(&self.synced, page), page_of(&self.current, page));
            let source = if old == new || seed.percent(pages_kept) {
                new
            } else {
                match self.written.get(&page) {
                    Some(written) if seed.percent(50) => written,
                    _ => old,
                }
            };
            let begin = page * PAGE;
            let some = source.len().min(size - begin);
            bytes[begin..begin + some].copy_from_slice(&source[..some]);
        }
        bytes
    }

    fn choose_size(&self, seed: &mut Seed) -> usize {
        let (old, new) = (self.synced.len(), self.current.len());
        if seed.percent(50) {
            return new;
        }
        let mut sizes: Vec<usize> = self.sizes.iter().copied().chain([old, new]).collect();
        let (low, high) = (old.min(new), old.max(new));
        let whole = (low / PAGE + 1)..=(high / PAGE);
        sizes.extend(whole.map(|pages| pages * PAGE));
        sizes[seed.index(sizes.len())]
    }
}

fn write_directory(
    into: &Path,
    directory: u64,
    tree: &BTreeMap<u64, BTreeMap<String, u64>>,
    file: &dyn Fn(u64) -> Vec<u8>,
) {
    fs::create_dir_all(into).expect("an image's directory");
    for (name, node) in tree.get(&directory).into_iter().flatten() {
        let path = into.join(name);
        if tree.contains_key(node) {
            write_directory(&path, *node, tree, file);
        } else {
            fs::write(&path, file(*node)).expect("an image's file");
        }
    }
}

fn number_of(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| metadata.ino())
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("a name below the root");
    name.to_str().expect("names in UTF-8").to_owned()
}

fn place_of(path: &Path) -> (u64, String) {
    let parent = path.parent().expect("below the root");
    let directory = number_of(parent).expect("the directory is there");
    (directory, name_of(path))
}

fn below(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.display().to_string()
}

fn contents(file: &File) -> Vec<u8> {
    let size = file.metadata().expect("an open file").len();
    let mut bytes = vec![0; size_of(size)];
    file.read_exact_at(&mut bytes, 0)
        .expect("nobody else cuts it");
    bytes
}

fn page_of(bytes: &[u8], page: usize) -> &[u8] {
    let begin = (page * PAGE).min(bytes.len());
    &bytes[begin..(begin + PAGE).min(bytes.len())]
}

fn changed_pages(old: &[u8], new: &[u8]) -> Vec<usize> {
    (0..new.len().div_ceil(PAGE))
        .filter(|page| page_of(old, *page) != page_of(new, *page))
        .collect()
}

fn pages_for(bytes: usize) -> u64 {
    u64::try_from(bytes.next_multiple_of(PAGE)).expect("64 bits")
}

fn size_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("64 bits")
}
