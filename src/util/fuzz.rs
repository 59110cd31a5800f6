//! Fuzzing: what a parser of foreign bytes must bear.
//!
//! A target is a test, in a module called `fuzz`, that hands [`check`] a function and some bytes
//! which it takes. `cargo test` runs the function on these, on what lies in `tests/data/fuzz` under
//! the target's name, and on their near relatives. `make fuzz` compiles the tests so that libFuzzer
//! sees which code an input reaches, and has it look for others, a minute a target.

use std::{fs, path::PathBuf};

/// How many relatives of an input are tried: enough to cut a small one everywhere.
const RELATIVES_MAX: usize = 256;

/// What a target makes of bytes: nothing where it refuses them. It panics where they break it.
pub(crate) type Target = fn(&[u8]) -> Option<()>;

/// Checks a target. `seeds` are bytes that it takes; libFuzzer begins with them.
pub(crate) fn check(name: &str, seeds: &[Vec<u8>], target: Target) {
    let corpus = corpus(name);
    #[cfg(midge_fuzz)]
    explore::run(name, seeds, &corpus, target);
    #[cfg_attr(midge_fuzz, expect(unreachable_code, reason = "libFuzzer ends the process"))]
    let mut taken = 0;
    for bytes in &corpus {
        taken += usize::from(target(bytes).is_some());
        relatives(bytes, target);
    }
    assert!(!seeds.is_empty() || taken > 0, "nothing of the corpus is taken: {name} is blind");
    for (number, bytes) in seeds.iter().enumerate() {
        assert!(target(bytes).is_some(), "seed {number} of {name} is refused");
        relatives(bytes, target);
    }
}

/// Returns the inputs that are kept for a target, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(name);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Runs the target on an input that is cut short, and with a bit changed, in many places.
fn relatives(bytes: &[u8], target: Target) {
    for at in (0..bytes.len()).step_by(bytes.len().div_ceil(RELATIVES_MAX).max(1)) {
        let _taken = target(&bytes[..at]);
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (at % 8);
        let _taken = target(&changed);
    }
}

/// libFuzzer, which looks for inputs that reach code no other input has reached.
#[cfg(midge_fuzz)]
mod explore {
    use super::Target;
    use std::{
        env,
        ffi::{CString, c_char, c_int},
        fs,
        path::PathBuf,
        sync::OnceLock,
    };

    /// The one target of this process.
    static TARGET: OnceLock<Target> = OnceLock::new();

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> libfuzzer_sys::Corpus {
        // Refused inputs are kept as well: a parser's branches are mostly refusals.
        let _taken = TARGET.get().expect("it is set before the fuzzer runs")(bytes);
        libfuzzer_sys::Corpus::Keep
    });

    type Callback = unsafe extern "C" fn(*const u8, usize) -> c_int;

    #[expect(unsafe_code, reason = "libFuzzer's interface is C")]
    unsafe extern "C" {
        fn LLVMFuzzerTestOneInput(bytes: *const u8, len: usize) -> c_int;
        fn LLVMFuzzerRunDriver(
            argc: *mut c_int,
            argv: *mut *mut *mut c_char,
            callback: Callback,
        ) -> c_int;
    }

    /// Runs libFuzzer, which ends the process when its time is over or an input breaks the target.
    pub(super) fn run(name: &str, seeds: &[Vec<u8>], corpus: &[Vec<u8>], target: Target) -> ! {
        TARGET.set(target).expect("a process runs one target: name it with --exact");
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/fuzz/found").join(name);
        fs::create_dir_all(&folder).unwrap();
        for (number, bytes) in seeds.iter().chain(corpus).enumerate() {
            fs::write(folder.join(format!("seed-{number}")), bytes).unwrap();
        }
        let folder = folder.display();
        let seconds = env::var("MIDGE_FUZZ_SECONDS").unwrap_or_else(|_| "60".to_owned());
        let arguments = [
            "midge".to_owned(),
            format!("-max_total_time={seconds}"),
            format!("-artifact_prefix={folder}-broken-"),
            // Nothing that is parsed takes seconds, nor much more memory than it has bytes.
            "-timeout=10".to_owned(),
            "-malloc_limit_mb=64".to_owned(),
            "-rss_limit_mb=1024".to_owned(),
            "-max_len=8192".to_owned(),
            "-print_final_stats=1".to_owned(),
            folder.to_string(),
        ];
        let arguments = arguments.map(|text| CString::new(text).unwrap());
        let mut pointers: Vec<_> = arguments.iter().map(|text| text.as_ptr().cast_mut()).collect();
        pointers.push(std::ptr::null_mut());
        let mut count = c_int::try_from(arguments.len()).unwrap();
        let mut pointers = pointers.as_mut_ptr();
        // SAFETY: the pointers are to strings that live until the process ends, null after the
        // last; the callback is libfuzzer-sys's own, which calls the macro's function above.
        #[expect(unsafe_code, reason = "libFuzzer's interface is C")]
        let code = unsafe {
            LLVMFuzzerRunDriver(&raw mut count, &raw mut pointers, LLVMFuzzerTestOneInput)
        };
        panic!("libFuzzer returned {code} instead of ending the process");
    }
}
