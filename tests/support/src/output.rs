//! Output of programs under test: kept for assertions, and printed when a test fails.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::panicking,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    task::JoinHandle,
};

use crate::wait_for;

/// Time limit for a line that a program is expected to print. The demo's own start timeout is 50 s,
/// and then it stops what it has started: its report comes first.
const LINE_TIMEOUT: Duration = Duration::from_secs(65);

/// Lines of each stream that a failing test prints: enough for the reason of a failure.
const PRINTED: usize = 200;

/// The lines of one stream so far. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Stream>>);

#[derive(Debug, Default)]
struct Stream {
    lines: Vec<String>,
    /// Closed by the program and by every process that inherited the stream.
    closed: bool,
}

impl Lines {
    async fn follow(self, output: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(output).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            self.lock().lines.push(line);
        }
        self.lock().closed = true;
    }

    /// All lines.
    #[must_use]
    pub fn all(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// All lines as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// The lines that contain this.
    #[must_use]
    pub fn with(&self, part: &str) -> Vec<String> {
        self.lock().lines.iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// Waits for a line that contains this: the first one.
    ///
    /// # Panics
    /// If the stream ends without such a line, or none comes in time.
    pub async fn line(&self, part: &str) -> String {
        let find = async || {
            let stream = self.lock();
            let found = stream.lines.iter().find(|line| line.contains(part)).cloned();
            (found.is_some() || stream.closed).then_some(found)
        };
        match wait_for(LINE_TIMEOUT, &format!("the line {part:?}"), find).await.0 {
            Some(line) => line,
            None => panic!("the output ended without the line {part:?}"),
        }
    }

    /// The last lines, indented, as a failing test prints them.
    fn report(&self) -> String {
        let stream = self.lock();
        let omitted = stream.lines.len().saturating_sub(PRINTED);
        let mut report = if omitted > 0 { format!("    ({omitted} lines before)\n") } else { String::new() };
        stream.lines.iter().skip(omitted).for_each(|line| report += &format!("    {line}\n"));
        report
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        // A line is pushed whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both output streams of a running program. If it is dropped because the test panics, at an
/// assertion or after a wait without result, it prints them.
#[derive(Debug)]
pub struct Output {
    program: String,
    out: Lines,
    err: Lines,
    readers: Vec<JoinHandle<()>>,
}

impl Output {
    /// Reads the streams of this program that are pipes.
    #[must_use]
    pub fn of(program: &str, child: &mut Child) -> Self {
        let (out, err) = (Lines::default(), Lines::default());
        let mut readers = Vec::new();
        if let Some(stream) = child.stdout.take() {
            readers.push(tokio::spawn(out.clone().follow(stream)));
        }
        if let Some(stream) = child.stderr.take() {
            readers.push(tokio::spawn(err.clone().follow(stream)));
        }
        Self { program: program.to_owned(), out, err, readers }
    }

    /// Standard output.
    #[must_use]
    pub fn out(&self) -> Lines {
        self.out.clone()
    }

    /// Standard error, which has the logs of a service.
    #[must_use]
    pub fn err(&self) -> Lines {
        self.err.clone()
    }

    /// Waits until the program, and every process that inherited its streams, has closed them.
    pub async fn closed(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader does not panic; if it did, the lines that it read are still there.
            let _ = reader.await;
        }
    }
}

impl Output {
    fn report(&self) -> String {
        let Self { program, out, err, readers: _ } = self;
        format!("standard output of {program}:\n{}standard error of {program}:\n{}", out.report(), err.report())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if panicking() {
            eprint!("{}", self.report());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::process::Command;

    use super::*;

    fn output(script: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Output::of("a script", &mut command.spawn().unwrap())
    }

    #[tokio::test]
    async fn a_report_has_the_last_lines_of_both_streams() {
        let mut output = output("seq 202; echo a warning >&2");
        output.closed().await;
        let report = output.report();
        assert!(report.starts_with("standard output of a script:\n    (2 lines before)\n    3\n    4\n"), "{report}");
        assert!(report.ends_with("    202\nstandard error of a script:\n    a warning\n"), "{report}");
    }

    #[tokio::test]
    #[should_panic(expected = "the output ended without the line \"two\"")]
    async fn a_line_of_a_program_that_has_ended_is_not_waited_for() {
        let output = output("echo one");
        assert_eq!(output.out().line("one").await, "one");
        output.out().line("two").await;
    }
}
