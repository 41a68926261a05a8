//! gannet's command line.

use std::process::ExitCode;

use gannet::cli;

/// Bodies come and go in all sizes on all threads; this one keeps up, and gives memory back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    if let Some(code) = gannet::downloader::image::answer_parent() {
        return code;
    }
    let cli = cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gannet: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::run(cli));
    // A thread that reads standard input cannot be told to stop.
    runtime.shutdown_background();
    code
}
