//! Amounts as Kubernetes writes them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::board::Quantity;

/// An amount that users wrote as a number or as text.
pub fn text(amount: &Quantity) -> String {
    match &amount.0 {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}

/// Its value, to compare it; `None` if it is none. `1024Mi` and `1Gi` are the same.
pub fn parse(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024_f64.powi(2),
        "Gi" => 1024_f64.powi(3),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_by_value() {
        assert_eq!(parse("1024Mi"), parse("1Gi"));
        assert_eq!(parse("50m"), parse("0.05"));
        assert!(parse("2G") < parse("2Gi"));
        for wrong in ["", "Gi", "1 Gi", "1gb", "-1", "1.2.3"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
