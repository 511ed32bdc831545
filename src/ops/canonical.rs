//! The canonical text of JSON (RFC 8785) and the content id of that text.
//!
//! It is small enough to be written here, where it is held to the RFC's own
//! examples, rather than to be a dependency that every identity hangs on.

use super::value::{Object, base32};
use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

/// A number without a canonical form: an integer that a double can't hold, so
/// that two readers could take it for two numbers. Write it as a string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not exact as a double; write it as a string")]
pub struct Inexact(String);

/// The largest integer up to which every one is a double.
const EXACT: u64 = (1 << 53) - 1;

/// The canonical text.
///
/// # Errors
/// A number that has none.
pub fn text(value: &Value) -> Result<String, Inexact> {
    let mut out = String::new();
    write(&mut out, value)?;
    Ok(out)
}

/// The CIDv1 (raw, SHA2-256) of bytes, in lower-case base32.
#[must_use]
pub fn cid(bytes: &[u8]) -> String {
    let mut content = vec![0x01, 0x55, 0x12, 0x20];
    content.extend_from_slice(&Sha256::digest(bytes));
    base32(&content)
}

fn write(out: &mut String, value: &Value) -> Result<(), Inexact> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(number)?),
        Value::String(text) => string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(out, item)?;
            }
            out.push(']');
        }
        Value::Object(entries) => object(out, entries)?,
    }
    Ok(())
}

/// In the order of UTF-16 code units, which is not that of UTF-8.
fn object(out: &mut String, entries: &Object) -> Result<(), Inexact> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push('{');
    for (n, (name, value)) in sorted.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        string(out, name);
        out.push(':');
        write(out, value)?;
    }
    out.push('}');
    Ok(())
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn number_text(number: &Number) -> Result<String, Inexact> {
    let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    match (magnitude, number.as_f64()) {
        (Some(integer), _) if integer <= EXACT => Ok(number.to_string()),
        (None, Some(double)) if double.is_finite() => Ok(double_text(double)),
        _ => Err(Inexact(number.to_string())),
    }
}

/// The fewest digits that are read back as `double`; of several as short, the
/// closest, and the even one of two that are as close (Rust's own takes either).
fn shortest(double: f64) -> String {
    let short = format!("{double:e}");
    let digits = short.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let even = format!("{double:.*e}", digits - 1);
    if even.parse() == Ok(double) { even } else { short }
}

/// As ECMAScript writes it: the shortest digits that are read back as the same
/// double, and an exponent from 1e21 up and below 1e-6.
fn double_text(double: f64) -> String {
    if double == 0.0 {
        return "0".to_owned();
    }
    let scientific = shortest(double.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or(0));
    let head = |n: i32| digits.split_at(usize::try_from(n).unwrap_or(0));
    let text = match point {
        22.. | ..=-6 => {
            let (first, rest) = head(1);
            let fraction = if rest.is_empty() { String::new() } else { format!(".{rest}") };
            format!("{first}{fraction}e{:+}", point - 1)
        }
        ..=0 => format!("0.{}{digits}", zeros(-point)),
        _ if count <= point => format!("{digits}{}", zeros(point - count)),
        _ => {
            let (whole, fraction) = head(point);
            format!("{whole}.{fraction}")
        }
    };
    if double < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn canonical(text_in: &str) -> String {
        text(&serde_json::from_str(text_in).expect("JSON")).expect("exact")
    }

    /// RFC 8785, appendix B: IEEE 754 bits and what they look like.
    const NUMBERS: [(u64, &str); 24] = [
        (0x0000_0000_0000_0000, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0xc340_0000_0000_0000, "-9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ];

    #[test]
    fn numbers_are_those_of_the_rfc() {
        for (bits, expected) in NUMBERS {
            assert_eq!(double_text(f64::from_bits(bits)), expected, "{bits:016x}");
        }
        assert_eq!(
            canonical("[0.002, 4.50, 1E30, 1e-27, -0.0, 1.0, 9007199254740991]"),
            "[0.002,4.5,1e+30,1e-27,0,1,9007199254740991]"
        );
        assert!(text(&json!(9_007_199_254_740_993_u64)).is_err());
        assert!(text(&json!(i64::MIN)).is_err());
    }

    #[test]
    fn the_sample_of_the_rfc_comes_out_as_it_says() {
        let sample = r#"{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#;
        let expected = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(canonical(sample), expected);
        assert_eq!(cid(expected.as_bytes()), "bafkreibnlya2gggq6cdzvnliys7crheld5so7cjbuu6ge56v4buzpc5kzm");
    }

    #[test]
    fn names_are_sorted_by_their_utf_16_code_units() {
        let sample = r#"{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}"#;
        let sorted = canonical(sample);
        let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"].map(|name| sorted.find(name));
        assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{sorted}");
        assert_eq!(cid(sorted.as_bytes()), "bafkreic6gikvnuradcuwk2mrvhuu657mc5p2de7ffisctuys7baz5sfqrq");
    }

    #[test]
    fn a_content_id_is_that_of_other_tools() {
        let nested = r#"{"z":{"b":2,"a":1},"a":{"y":{"c":3,"b":2,"a":1},"x":0},"m":[{"k":2,"j":1},{"b":1,"a":0}]}"#;
        let of = |sample: &str| cid(canonical(sample).as_bytes());
        assert_eq!(of("{ }"), "bafkreicecnx2gvntm6fbcrvnc336qze6st5u7qq7457igegamd3bzkx7ri");
        assert_eq!(of(nested), "bafkreibdzn4yjiezugokydw7vyqwcjshrancuflfwcx5os2ivggp7fw77i");
        assert!(serde_json::from_str::<Value>(r#"{"bad":"\uDEAD"}"#).is_err());
    }

    proptest! {
        #[test]
        fn a_double_is_read_back_as_itself(bits in any::<u64>()) {
            let double = f64::from_bits(bits);
            if double.is_finite() {
                prop_assert_eq!(double_text(double).parse::<f64>().expect("a number"), double);
            }
        }

        #[test]
        fn the_canonical_text_is_its_own(text_in in ".{0,40}", n in -1e15_f64..1e15) {
            let value = json!({"s": text_in.clone(), text_in: [n, null, true]});
            let once = text(&value).expect("exact");
            prop_assert_eq!(canonical(&once), once);
        }
    }
}
