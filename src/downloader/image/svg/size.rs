//! The size that an SVG states (SVG 2, section 8.2): `width` and `height`, else the view box. It is in CSS pixels, of
//! which an inch has 96. They are no pixels of the file: a vector image has none.

/// The attributes of the root element that bear on its size.
#[derive(Debug, Default)]
pub(super) struct Stated {
    width: Option<f64>,
    height: Option<f64>,
    view_box: Option<(f64, f64)>,
}

impl Stated {
    pub(super) fn note(&mut self, key: &str, value: &str) {
        match key {
            "width" => self.width = pixels(value),
            "height" => self.height = pixels(value),
            "viewBox" => self.view_box = view_box(value),
            _ => {}
        }
    }

    /// The size in whole CSS pixels. `None` if none is stated, or one beyond [`MAX_SIDE`].
    pub(super) fn size(self) -> Option<(u32, u32)> {
        let (width, height) = match (self.width, self.height, self.view_box) {
            (Some(width), Some(height), _) => (width, height),
            // The side that is missing follows from the proportions.
            (Some(width), None, Some((w, h))) => (width, width * h / w),
            (None, Some(height), Some((w, h))) => (height * w / h, height),
            (_, _, view_box) => view_box?,
        };
        Some((side(width)?, side(height)?))
    }
}

/// Largest side that is told. Browsers compute with no larger ones.
const MAX_SIDE: f64 = 33_554_431.0;

/// A side in whole pixels, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and the largest side"
)]
fn side(pixels: f64) -> Option<u32> {
    (pixels <= MAX_SIDE).then(|| (pixels.round() as u32).max(1))
}

/// A length in CSS pixels (CSS Values 4, section 6); `None` for shares of an unknown whole and for empty ones. The
/// font is the default one, of 16 pixels.
fn pixels(value: &str) -> Option<f64> {
    let value = value.trim();
    let unit =
        value.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '+' | '-'));
    // An exponent is not part of a unit.
    let unit = match unit.as_bytes() {
        [b'e' | b'E', b'0'..=b'9' | b'-' | b'+', ..] => {
            unit[1..].trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'))
        }
        _ => unit,
    };
    let number: f64 = value[..value.len() - unit.len()].parse().ok()?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "px" => 1.0,
        "pt" => 96.0 / 72.0,
        "pc" => 16.0,
        "in" => 96.0,
        "cm" => 96.0 / 2.54,
        "mm" => 96.0 / 25.4,
        "q" => 96.0 / 101.6,
        "em" | "rem" => 16.0,
        "ex" | "ch" => 8.0,
        _ => return None,
    };
    Some(number * factor).filter(|n| n.is_finite() && *n > 0.0)
}

fn view_box(value: &str) -> Option<(f64, f64)> {
    let mut numbers = value
        .split(|c: char| c.is_ascii_whitespace() || c == ',')
        .filter(|n| !n.is_empty())
        .map(|n| n.parse::<f64>().ok().filter(|n| n.is_finite()));
    let (_, _) = (numbers.next()??, numbers.next()??);
    let size = (numbers.next()??, numbers.next()??);
    (size.0 > 0.0 && size.1 > 0.0).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(attributes: &[(&str, &str)]) -> Option<(u32, u32)> {
        let mut stated = Stated::default();
        for (key, value) in attributes {
            stated.note(key, value);
        }
        stated.size()
    }

    #[test]
    fn lengths_come_before_the_view_box() {
        let view = ("viewBox", "0,0 , 200 100");
        assert_eq!(
            size(&[("width", "10"), ("height", " 20px "), view]),
            Some((10, 20))
        );
        assert_eq!(
            size(&[("width", "1in"), ("height", "2.54cm")]),
            Some((96, 96))
        );
        assert_eq!(
            size(&[("width", "210mm"), ("height", "1e2pt")]),
            Some((794, 133))
        );
        assert_eq!(size(&[("width", "50"), view]), Some((50, 25)));
        assert_eq!(size(&[("height", "50"), view]), Some((100, 50)));
        assert_eq!(
            size(&[("width", "100%"), ("height", "100%"), view]),
            Some((200, 100))
        );
        assert_eq!(
            size(&[("width", "2em"), ("height", "10ex")]),
            Some((32, 80))
        );
        assert_eq!(
            size(&[("width", "20000mm"), ("height", "10mm")]),
            Some((75_591, 38))
        );
        assert_eq!(size(&[("width", "1e9"), ("height", "1")]), None);
        assert_eq!(size(&[("width", "2vw"), ("height", "0")]), None);
        assert_eq!(size(&[("viewBox", "0 0 -1 5")]), None);
        assert_eq!(size(&[("viewBox", "0 0 1")]), None);
        assert_eq!(size(&[("width", "NaN"), ("height", "inf")]), None);
        assert_eq!(size(&[]), None);
    }
}
