fn main() -> std::process::ExitCode {
    midge::run()
}
