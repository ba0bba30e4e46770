//! The behaviour of the data directory, the metadata file and the journal on a real file system.

mod cold;
mod completion;
mod crash;
mod damage;
mod data_dir;
mod full_disk;
mod inspect;
mod journal;
mod log_properties;
mod meta;
mod open_files;
mod repair;
mod support;
mod sync_journal;
