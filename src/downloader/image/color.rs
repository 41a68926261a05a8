//! Colour spaces, and the way from them to sRGB.
//!
//! `moxcms` converts: pure Rust, already below `image`, and it knows matrix profiles and tables, of RGB, grey and CMYK.

use std::panic::{self, AssertUnwindSafe};

use image::{DynamicImage, ImageBuffer};
use moxcms::{
    Chromaticity, CicpColorPrimaries, CicpProfile, CmsError, ColorPrimaries, ColorProfile,
    DataColorSpace, Layout, MatrixCoefficients, ToneReprCurve, TransferCharacteristics,
    TransformOptions, WHITE_POINT_D65, curve_from_gamma,
};

/// The colour space of a picture that is not sRGB by default.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Color {
    /// An ICC profile, not yet looked at.
    Icc(Vec<u8>),
    /// Code points of ITU-T H.273.
    Cicp {
        /// `ColourPrimaries`.
        primaries: u8,
        /// `TransferCharacteristics`.
        transfer: u8,
    },
    /// PNG's `gAMA` and `cHRM`.
    Gamma {
        /// The exponent by which samples were encoded, such as 0.45455.
        gamma: f64,
        /// x and y of white, red, green and blue.
        primaries: Option<[f64; 8]>,
    },
}

/// A picture in sRGB, or the profile that it still needs.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) image: DynamicImage,
    /// The profile of `image`, where there was no way to sRGB.
    pub(crate) profile: Option<Vec<u8>>,
}

/// Converts `image` from `color` to sRGB, in its own depth or 16 bits.
///
/// A damaged profile, and one for another kind of pixels, count as missing. A sound profile that cannot be converted
/// is handed back, for the file that is written.
pub(crate) fn to_srgb(image: DynamicImage, color: Option<&Color>) -> Converted {
    let plain = |image| Converted {
        image,
        profile: None,
    };
    let Some(profile) = color.and_then(profile) else {
        return match color {
            Some(Color::Icc(bytes)) if is_whole(bytes, image.color().has_color()) => Converted {
                image,
                profile: Some(bytes.clone()),
            },
            _ => plain(image),
        };
    };
    let was_grey = !image.color().has_color();
    let image = match (profile.color_space, image.color().has_color()) {
        (DataColorSpace::Rgb, true) | (DataColorSpace::Gray, false) => image,
        // Grey pictures with a profile of RGB are common; their grey may have a tint.
        (DataColorSpace::Rgb, false) => with_color(image),
        _ => return plain(image),
    };
    match unless_it_panics(|| convert(&image, &profile)) {
        Some(image) if was_grey => plain(without_tint(image)),
        Some(image) => plain(image),
        None => Converted {
            image,
            profile: match color {
                Some(Color::Icc(bytes)) => Some(bytes.clone()),
                _ => None,
            },
        },
    }
}

/// Converts samples of CMYK, where 255 is full ink, to sRGB. `None` if `profile` has no way to do that.
pub(super) fn cmyk_to_srgb(profile: &[u8], cmyk: &[u8]) -> Option<Vec<u8>> {
    let profile = unless_it_panics(|| ColorProfile::new_from_slice(profile))?;
    if profile.color_space != DataColorSpace::Cmyk {
        return None;
    }
    unless_it_panics(|| {
        let srgb = ColorProfile::new_srgb();
        let transform =
            profile.create_transform_8bit(Layout::Rgba, &srgb, Layout::Rgb, options(&profile))?;
        let mut rgb = vec![0; cmyk.len() / 4 * 3];
        transform.transform(cmyk, &mut rgb)?;
        Ok(rgb)
    })
}

/// Whether `bytes` look like a whole profile, for pixels with colour or without, although it cannot be read.
fn is_whole(bytes: &[u8], has_color: bool) -> bool {
    let length = bytes
        .first_chunk()
        .map(|length| u32::from_be_bytes(*length));
    let space: &[u8] = if has_color { b"RGB " } else { b"GRAY" };
    length == u32::try_from(bytes.len()).ok()
        && bytes.get(36..40) == Some(b"acsp")
        && bytes.get(16..20) == Some(space)
}

fn profile(color: &Color) -> Option<ColorProfile> {
    match color {
        Color::Icc(bytes) => unless_it_panics(|| ColorProfile::new_from_slice(bytes)),
        Color::Cicp {
            primaries,
            transfer,
        } => cicp(*primaries, *transfer),
        Color::Gamma { gamma, primaries } => numbers(*gamma, primaries.as_ref()),
    }
}

fn cicp(primaries: u8, transfer: u8) -> Option<ColorProfile> {
    let primaries = CicpColorPrimaries::try_from(primaries).ok()?;
    let transfer_characteristics = TransferCharacteristics::try_from(transfer).ok()?;
    // sRGB itself, and nothing that is known.
    if matches!(
        (primaries, transfer_characteristics),
        (CicpColorPrimaries::Bt709, TransferCharacteristics::Srgb)
            | (CicpColorPrimaries::Unspecified, _)
    ) {
        return None;
    }
    let mut profile = ColorProfile::new_from_cicp(CicpProfile {
        color_primaries: primaries,
        transfer_characteristics,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    });
    profile.cicp = None;
    match transfer_characteristics {
        // Light beyond white is compressed, so that an SDR picture of an HDR one is neither dark nor burnt out.
        TransferCharacteristics::Smpte2084 => set_curve(&mut profile, tone_mapped(pq)),
        TransferCharacteristics::Hlg => set_curve(&mut profile, tone_mapped(hlg)),
        _ => {}
    }
    profile.red_trc.is_some().then_some(profile)
}

/// Light of reference white (ITU-R BT.2408), and the brightest that is told apart, in cd/m².
const WHITE: f64 = 203.0;
const PEAK: f64 = 1000.0;

/// A curve from encoded values to light between black and white, of one to light in cd/m².
fn tone_mapped(light: fn(f64) -> f64) -> ToneReprCurve {
    const STEPS: u16 = 4095;
    let values = (0..=STEPS).map(|n| {
        let light = (light(f64::from(n) / f64::from(STEPS)) / WHITE).min(PEAK / WHITE);
        // Reinhard's curve with a white point of its own.
        let peak = PEAK / WHITE;
        let mapped = light * (1.0 + light / (peak * peak)) / (1.0 + light);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 65535"
        )]
        let value = (mapped.clamp(0.0, 1.0) * 65535.0).round() as u16;
        value
    });
    ToneReprCurve::Lut(values.collect())
}

/// SMPTE ST 2084.
fn pq(value: f64) -> f64 {
    let (m1, m2) = (2610.0 / 16384.0, 2523.0 / 32.0);
    let (c1, c2, c3) = (3424.0 / 4096.0, 2413.0 / 128.0, 2392.0 / 128.0);
    let root = value.powf(1.0 / m2);
    10_000.0 * ((root - c1).max(0.0) / (c2 - c3 * root)).powf(1.0 / m1)
}

/// ITU-R BT.2100, for a display of 1000 cd/m², channel by channel.
fn hlg(value: f64) -> f64 {
    let (a, b, c) = (0.178_832_77, 0.284_668_92, 0.559_910_73);
    let scene = if value <= 0.5 {
        value * value / 3.0
    } else {
        (((value - c) / a).exp() + b) / 12.0
    };
    PEAK * scene.powf(1.2)
}

/// `None` where that is sRGB, or as near as writers come to it.
fn numbers(gamma: f64, primaries: Option<&[f64; 8]>) -> Option<ColorProfile> {
    const SRGB: [f64; 8] = [0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06];
    let near = |one: f64, other: f64| (one - other).abs() < 0.002;
    let primaries = primaries.filter(|given| {
        let zero = given.contains(&0.0);
        !zero && !given.iter().zip(SRGB).all(|(one, other)| near(*one, other))
    });
    // Within a twentieth, as libpng has it: writers of sRGB put 45455 there.
    let is_srgb_curve = (gamma * 2.2 - 1.0).abs() < 0.05;
    if !(0.01..=10.0).contains(&gamma) || (is_srgb_curve && primaries.is_none()) {
        return None;
    }
    let mut profile = ColorProfile::new_srgb();
    profile.cicp = None;
    if let Some([white_x, white_y, colors @ ..]) = primaries {
        #[expect(clippy::cast_possible_truncation, reason = "five digits")]
        let point = |x: f64, y: f64| Chromaticity::new(x as f32, y as f32);
        let mut white = WHITE_POINT_D65;
        (white.x, white.y) = (*white_x, *white_y);
        let [rx, ry, gx, gy, bx, by] = *colors;
        let primaries = ColorPrimaries {
            red: point(rx, ry),
            green: point(gx, gy),
            blue: point(bx, by),
        };
        profile.update_rgb_colorimetry(white, primaries);
    }
    if !is_srgb_curve {
        #[expect(clippy::cast_possible_truncation, reason = "five digits")]
        let curve = curve_from_gamma((1.0 / gamma) as f32);
        set_curve(&mut profile, curve);
    }
    let matrix = profile.colorant_matrix().v;
    matrix
        .as_flattened()
        .iter()
        .all(|n| n.is_finite())
        .then_some(profile)
}

fn set_curve(profile: &mut ColorProfile, curve: ToneReprCurve) {
    profile.red_trc = Some(curve.clone());
    profile.green_trc = Some(curve.clone());
    profile.blue_trc = Some(curve);
}

fn options(profile: &ColorProfile) -> TransformOptions {
    TransformOptions {
        rendering_intent: profile.rendering_intent,
        prefer_fixed_point: false,
        ..TransformOptions::default()
    }
}

fn with_color(image: DynamicImage) -> DynamicImage {
    let (alpha, deep) = (image.color().has_alpha(), is_deep(&image));
    match (alpha, deep) {
        (false, false) => image.into_rgb8().into(),
        (true, false) => image.into_rgba8().into(),
        (false, true) => image.into_rgb16().into(),
        (true, true) => image.into_rgba16().into(),
    }
}

/// The same in grey, if that loses no more than rounding did.
fn without_tint(image: DynamicImage) -> DynamicImage {
    let grey = |r: u16, g: u16, b: u16, most| r.abs_diff(g) <= most && g.abs_diff(b) <= most;
    let neutral = if is_deep(&image) {
        let image = image.to_rgb16();
        image.pixels().all(|p| grey(p.0[0], p.0[1], p.0[2], 257))
    } else {
        let image = image.to_rgb8();
        let wide = |p: &image::Rgb<u8>| p.0.map(u16::from);
        image.pixels().map(wide).all(|[r, g, b]| grey(r, g, b, 1))
    };
    match (neutral, image.color().has_alpha(), is_deep(&image)) {
        (false, ..) => image,
        (true, false, false) => image.into_luma8().into(),
        (true, true, false) => image.into_luma_alpha8().into(),
        (true, false, true) => image.into_luma16().into(),
        (true, true, true) => image.into_luma_alpha16().into(),
    }
}

/// Whether it has more than 8 bits for a sample.
fn is_deep(image: &DynamicImage) -> bool {
    let color = image.color();
    color.bytes_per_pixel() > color.channel_count()
}

fn convert(image: &DynamicImage, profile: &ColorProfile) -> Result<DynamicImage, CmsError> {
    let color = image.color();
    let mut srgb = ColorProfile::new_srgb();
    let layout = match (color.has_color(), color.has_alpha()) {
        (true, false) => Layout::Rgb,
        (true, true) => Layout::Rgba,
        (false, false) => Layout::Gray,
        (false, true) => Layout::GrayAlpha,
    };
    if profile.color_space == DataColorSpace::Gray {
        srgb.color_space = DataColorSpace::Gray;
        srgb.gray_trc = srgb.red_trc.clone();
        srgb.cicp = None;
    }
    let options = options(profile);
    let (width, height) = (image.width(), image.height());
    macro_rules! converted {
        ($make:ident, $samples:expr) => {{
            let samples = $samples;
            let transform = profile.$make(layout, &srgb, layout, options)?;
            let mut out = vec![0; samples.len()];
            transform.transform(samples, &mut out)?;
            out
        }};
    }
    macro_rules! whole {
        ($out:expr) => {
            ImageBuffer::from_raw(width, height, $out).ok_or(CmsError::InvalidLayout)?
        };
    }
    Ok(match image {
        DynamicImage::ImageLuma8(from) => {
            DynamicImage::ImageLuma8(whole!(converted!(create_transform_8bit, from.as_raw())))
        }
        DynamicImage::ImageLumaA8(from) => {
            DynamicImage::ImageLumaA8(whole!(converted!(create_transform_8bit, from.as_raw())))
        }
        DynamicImage::ImageRgb8(from) => {
            DynamicImage::ImageRgb8(whole!(converted!(create_transform_8bit, from.as_raw())))
        }
        DynamicImage::ImageRgba8(from) => {
            DynamicImage::ImageRgba8(whole!(converted!(create_transform_8bit, from.as_raw())))
        }
        DynamicImage::ImageLuma16(from) => {
            DynamicImage::ImageLuma16(whole!(converted!(create_transform_16bit, from.as_raw())))
        }
        DynamicImage::ImageLumaA16(from) => {
            DynamicImage::ImageLumaA16(whole!(converted!(create_transform_16bit, from.as_raw())))
        }
        DynamicImage::ImageRgba16(from) => {
            DynamicImage::ImageRgba16(whole!(converted!(create_transform_16bit, from.as_raw())))
        }
        other => {
            let deep = match color.has_alpha() {
                true => DynamicImage::ImageRgba16(other.to_rgba16()),
                false => {
                    let from = other.to_rgb16();
                    let out = converted!(create_transform_16bit, from.as_raw());
                    return Ok(DynamicImage::ImageRgb16(whole!(out)));
                }
            };
            return convert(&deep, profile);
        }
    })
}

/// `None` for an error, and for a panic.
fn unless_it_panics<T>(work: impl FnOnce() -> Result<T, CmsError>) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(work)).ok()?.ok()
}

/// Profiles made by hand.
#[cfg(test)]
pub(crate) mod profiles {
    /// Chromatically adapted colorants of Display P3, as columns X, Y, Z of red, green and blue.
    pub(crate) const P3: [[f64; 3]; 3] = [
        [0.515_11, 0.241_19, -0.001_05],
        [0.291_98, 0.692_24, 0.041_88],
        [0.157_10, 0.066_57, 0.784_07],
    ];

    /// Those of sRGB.
    pub(crate) const SRGB: [[f64; 3]; 3] = [
        [0.436_07, 0.222_49, 0.013_92],
        [0.385_15, 0.716_87, 0.097_08],
        [0.143_07, 0.060_61, 0.714_10],
    ];

    fn fixed(number: f64) -> [u8; 4] {
        #[expect(clippy::cast_possible_truncation, reason = "numbers of a profile")]
        let fixed = (number * 65536.0).round() as i32;
        fixed.to_be_bytes()
    }

    fn assemble(version: u8, space: &[u8; 4], tags: &[([u8; 4], Vec<u8>)]) -> Vec<u8> {
        let mut head = vec![0; 128];
        head[8] = version;
        head[12..16].copy_from_slice(b"mntr");
        head[16..20].copy_from_slice(space);
        head[20..24].copy_from_slice(b"XYZ ");
        head[36..40].copy_from_slice(b"acsp");
        for (at, number) in [(68, 0.9642), (72, 1.0), (76, 0.8249)] {
            head[at..at + 4].copy_from_slice(&fixed(number));
        }
        let mut profile = head;
        profile.extend((tags.len() as u32).to_be_bytes());
        let mut at = 132 + 12 * tags.len();
        for (name, content) in tags {
            profile.extend(name);
            profile.extend((at as u32).to_be_bytes());
            profile.extend((content.len() as u32).to_be_bytes());
            at += content.len();
        }
        profile.extend(tags.iter().flat_map(|(_, content)| content));
        let length = (profile.len() as u32).to_be_bytes();
        profile[..4].copy_from_slice(&length);
        profile
    }

    /// A gamma, as version 2 or 4 write it.
    fn curve(version: u8, gamma: f64) -> Vec<u8> {
        if version == 4 {
            return [&b"para\0\0\0\0\0\0\0\0"[..], &fixed(gamma)].concat();
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let gamma = (gamma * 256.0).round() as u16;
        let gamma = gamma.to_be_bytes();
        [&b"curv\0\0\0\0\0\0\0\x01"[..], &gamma, &[0, 0]].concat()
    }

    /// A matrix profile of those colorants and that gamma.
    pub(crate) fn rgb(version: u8, colorants: [[f64; 3]; 3], gamma: f64) -> Vec<u8> {
        let xyz = |color: [f64; 3]| {
            let numbers = color.iter().flat_map(|number| fixed(*number));
            b"XYZ \0\0\0\0"
                .iter()
                .copied()
                .chain(numbers)
                .collect::<Vec<_>>()
        };
        let tags: Vec<_> = [*b"rXYZ", *b"gXYZ", *b"bXYZ"]
            .into_iter()
            .zip(colorants.map(xyz))
            .chain([*b"rTRC", *b"gTRC", *b"bTRC"].map(|name| (name, curve(version, gamma))))
            .collect();
        assemble(version, b"RGB ", &tags)
    }

    /// A profile of greys with that gamma.
    pub(crate) fn grey(gamma: f64) -> Vec<u8> {
        assemble(2, b"GRAY", &[(*b"kTRC", curve(2, gamma))])
    }

    /// A profile with no way from device to connection space.
    pub(crate) fn odd() -> Vec<u8> {
        assemble(4, b"RGB ", &[])
    }

    /// The same colour in sRGB, computed from the definition.
    pub(crate) fn expected(color: [f64; 3], colorants: [[f64; 3]; 3], gamma: f64) -> [f64; 3] {
        let light = color.map(|value| value.powf(gamma));
        let sum = |row: usize| (0..3).map(|n| colorants[n][row] * light[n]).sum::<f64>();
        let (x, y, z) = (sum(0), sum(1), sum(2));
        let linear = [
            3.134_19 * x - 1.617_18 * y - 0.490_78 * z,
            -0.978_76 * x + 1.916_14 * y + 0.033_45 * z,
            0.071_95 * x - 0.228_99 * y + 1.405_43 * z,
        ];
        linear.map(|light| {
            let light = light.clamp(0.0, 1.0);
            if light <= 0.003_130_8 {
                12.92 * light
            } else {
                1.055 * light.powf(1.0 / 2.4) - 0.055
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, Rgb32FImage, RgbImage, Rgba, RgbaImage};

    use super::*;

    const COLORS: [[u8; 3]; 7] = [
        [255, 255, 255],
        [128, 128, 128],
        [200, 30, 30],
        [30, 200, 30],
        [30, 30, 200],
        [240, 180, 20],
        [12, 60, 90],
    ];

    fn near(found: [f64; 3], expected: [f64; 3], what: &str) {
        let off = found
            .iter()
            .zip(expected)
            .map(|(one, other)| (one - other).abs());
        assert!(
            off.fold(0.0, f64::max) < 0.01,
            "{what}: {found:?}, not {expected:?}"
        );
    }

    #[test]
    fn pixels_come_out_as_the_profile_defines_them() {
        let [r, g, b] = profiles::SRGB;
        let swapped = [b, g, r];
        for (version, colorants, gamma) in [
            (2, profiles::P3, 2.2),
            (4, profiles::P3, 2.2),
            (2, swapped, 2.2),
            (4, swapped, 1.8),
            (2, profiles::SRGB, 1.0),
        ] {
            let color = Color::Icc(profiles::rgb(version, colorants, gamma));
            for rgb in COLORS {
                let what = format!("{version} {gamma} {rgb:?}");
                let [r, g, b] = rgb;
                let shade = rgb.map(|value| f64::from(value) / 255.0);
                let expected = profiles::expected(shade, colorants, gamma);
                let flat = DynamicImage::from(RgbImage::from_pixel(9, 5, Rgb(rgb)));
                let clear = RgbaImage::from_pixel(9, 5, Rgba([r, g, b, 77]));
                let float = Rgb32FImage::from_pixel(9, 5, Rgb(shade.map(|value| value as f32)));
                for image in [
                    flat.clone(),
                    flat.to_rgb16().into(),
                    clear.clone().into(),
                    DynamicImage::from(clear).to_rgba16().into(),
                    float.into(),
                ] {
                    let made = to_srgb(image, Some(&color));
                    assert_eq!(made.profile, None);
                    let alpha = made.image.color().has_alpha();
                    let pixel = made.image.to_rgba16().get_pixel(8, 4).0;
                    let [r, g, b, a] = pixel.map(|value| f64::from(value) / 65535.0);
                    near([r, g, b], expected, &what);
                    assert!(!alpha || (a * 255.0 - 77.0).abs() < 0.5);
                }
            }
        }
    }

    #[test]
    fn grey_stays_grey() {
        let image =
            |value| DynamicImage::from(image::GrayImage::from_pixel(4, 4, image::Luma([value])));
        for color in [
            Color::Icc(profiles::grey(1.0)),
            Color::Icc(profiles::rgb(2, profiles::P3, 1.0)),
        ] {
            for (value, expected) in [(0, 0), (55, 128), (255, 255)] {
                let made = to_srgb(image(value), Some(&color)).image;
                let DynamicImage::ImageLuma8(made) = made else {
                    panic!("{made:?}")
                };
                assert!(made.get_pixel(1, 1).0[0].abs_diff(expected) < 2);
            }
        }
    }

    #[test]
    fn a_damaged_profile_is_none_and_an_odd_one_is_handed_back() {
        let image = DynamicImage::from(RgbImage::from_pixel(4, 4, Rgb([1, 2, 3])));
        let whole = profiles::rgb(2, profiles::P3, 2.2);
        for bytes in [
            vec![],
            vec![0; 200],
            whole[..150].to_vec(),
            profiles::grey(2.2),
        ] {
            let made = to_srgb(image.clone(), Some(&Color::Icc(bytes)));
            assert_eq!((made.image, made.profile), (image.clone(), None));
        }
        let odd = profiles::odd();
        let made = to_srgb(image.clone(), Some(&Color::Icc(odd.clone())));
        assert_eq!((made.image, made.profile), (image, Some(odd)));
    }

    #[test]
    fn numbers_say_the_same_as_a_profile() {
        let image = DynamicImage::from(RgbImage::from_pixel(4, 4, Rgb([200, 30, 30])));
        let pixel = |color: Color| {
            to_srgb(image.clone(), Some(&color))
                .image
                .to_rgb8()
                .get_pixel(0, 0)
                .0
        };
        let srgb = [0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06];
        let p3 = [0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06];
        for primaries in [None, Some(srgb)] {
            let gamma = 0.45455;
            assert_eq!(pixel(Color::Gamma { gamma, primaries }), [200, 30, 30]);
        }
        let linear = pixel(Color::Gamma {
            gamma: 1.0,
            primaries: None,
        });
        assert!(linear[0].abs_diff(228) < 2, "{linear:?}");
        let wide = pixel(Color::Gamma {
            gamma: 0.45455,
            primaries: Some(p3),
        });
        let code = pixel(Color::Cicp {
            primaries: 12,
            transfer: 13,
        });
        assert!(
            wide.iter()
                .zip(code)
                .all(|(one, other)| one.abs_diff(other) < 2)
        );
        assert!(wide[0] > 210, "{wide:?}");
        let same = Color::Cicp {
            primaries: 1,
            transfer: 13,
        };
        assert_eq!(pixel(same), [200, 30, 30]);
        for transfer in [16, 18] {
            let bright = DynamicImage::from(RgbImage::from_pixel(4, 4, Rgb([140; 3])));
            let primaries = 9;
            let made = to_srgb(
                bright,
                Some(&Color::Cicp {
                    primaries,
                    transfer,
                }),
            );
            let [grey, ..] = made.image.to_rgb8().get_pixel(0, 0).0;
            assert!((100..240).contains(&grey), "{transfer}: {grey}");
        }
        let absurd = Color::Gamma {
            gamma: 1.0,
            primaries: Some([0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]),
        };
        pixel(absurd);
    }
}
