//! Stories about stores: alone, in threes, after crashes and damage.

mod backup;
mod cluster;
mod compare;
mod damage;
mod disk;
mod fixture;
mod formats;
mod leases;
mod members;
mod mutation;
mod order;
mod ranges;
mod recover;
mod suite;
