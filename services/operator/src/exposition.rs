//! Reads a page of metrics in Prometheus' text format. Lines that are not samples are skipped.

/// One line of the page: the value of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// The name of the metric.
    pub metric: &'a str,
    labels: Vec<(&'a str, String)>,
    /// The value; a timestamp after it is ignored.
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label, without its escapes.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }
}

/// All samples of a page, in its order.
pub fn samples(page: &str) -> impl Iterator<Item = Sample<'_>> {
    page.lines().filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim_start();
    let end = line.find(|character: char| !(character.is_ascii_alphanumeric() || "_:".contains(character)))?;
    // A comment begins with `#`, so its metric would have no name.
    let (metric, rest) = line.split_at_checked(end).filter(|(metric, _)| !metric.is_empty())?;
    let mut rest = rest.trim_start();
    let mut labels = Vec::new();
    if let Some(list) = rest.strip_prefix('{') {
        rest = list;
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (name, after) = rest.split_once('=')?;
            let (value, after) = quoted(after.trim_start())?;
            labels.push((name.trim_end(), value));
            rest = after;
        }
    }
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Sample { metric, labels, value })
}

/// The text in quotation marks at the beginning, and what follows it. The format escapes `\`, `"`
/// and line feeds.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (index, '"') => return Some((value, text.get(index + 1..)?)),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped @ ('\\' | '"') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            (_, character) => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(page: &str) -> Sample<'_> {
        let mut found = samples(page);
        let sample = found.next().unwrap();
        assert_eq!(found.next(), None, "{page}");
        sample
    }

    #[test]
    fn comments_and_broken_lines_are_no_samples() {
        let broken = [
            "",
            "# TYPE a gauge",
            "#",
            "a",
            "a{",
            "a{b",
            "a{b=",
            "a{b=\"",
            "a{b=\"c\"",
            "a{b=c} 1",
            "a one",
            "{a=\"b\"} 1",
        ];
        for line in broken {
            assert_eq!(samples(line).next(), None, "{line}");
        }
        assert_eq!(only("# HELP a What a is\n# TYPE a gauge\na 41\na{b=\"c\" 2\n").value, 41.0);
    }

    #[test]
    fn a_timestamp_is_no_value() {
        for line in ["a:b_1 2.5", "a:b_1\t2.5 1763719200000", " a:b_1{} 2.5 ", "a:b_1 {} 25e-1"] {
            assert_eq!(only(line), Sample { metric: "a:b_1", labels: Vec::new(), value: 2.5 }, "{line}");
        }
        assert_eq!(only("a +Inf").value, f64::INFINITY);
    }

    #[test]
    fn labels_may_hold_what_the_format_itself_uses() {
        let sample = only(r#"a{feed="a b",path = "C:\\new\n\"} 7, {", other="é\d",} 1 1763719200000"#);
        assert_eq!(sample.label("feed"), Some("a b"));
        assert_eq!(sample.label("path"), Some("C:\\new\n\"} 7, {"));
        assert_eq!(sample.label("other"), Some("é\\d"));
        assert_eq!((sample.label("absent"), sample.value), (None, 1.0));
    }
}
