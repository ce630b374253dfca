//! Each run as a test case, for CI.

use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Cases, TestCase, TestCaseStatus, TestSuite};

use super::Report;

impl Report {
    /// A JUnit file.
    pub fn junit(&self) -> String {
        let mut suite = TestSuite::new("tidemark drill");
        for run in &self.runs {
            let broken = self.broken(run);
            let status = if broken.is_empty() {
                TestCaseStatus::success()
            } else {
                let mut failure = TestCaseStatus::non_success(NonSuccessKind::Failure);
                failure.set_message(broken.join("; "));
                failure
            };
            let mut case = TestCase::new(format!("{} run {}", run.fault, run.number), status);
            case.set_classname(self.url.clone()).set_time(Duration::from_millis(run.measured.during.1.ms));
            suite.add_test_case(case);
        }
        let mut cases = Cases::new("tidemark drill");
        cases.add_test_suite(suite);
        // Writing to memory cannot fail.
        cases.to_string().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn a_run_that_breaks_a_budget_is_a_failed_test() {
        let text = report(&["blackout-p99=100ms"], &[("sigterm", 0), ("sigkill", 400)]).junit();
        assert!(text.contains(r#"tests="2""#) && text.contains(r#"failures="1""#), "{text}");
        assert!(
            text.contains(r#"name="sigkill run 2""#) && text.contains("blackout-p99 400ms, at most 100ms"),
            "{text}"
        );
    }
}
