//! `cornjacket up`: everything on one machine by one command.

pub mod postgres;
