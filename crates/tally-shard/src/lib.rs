//! Partitions and coordinators under one owner.
