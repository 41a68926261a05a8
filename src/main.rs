//! gannet's command line.

fn main() {}
