//! Stories about stores: alone, in threes, after crashes and damage.

mod cluster;
mod damage;
mod fixture;
mod leases;
mod members;
mod order;
mod ranges;
mod suite;
