//! How resources are made true: resolve, plan, apply, status.
