//! Paints the demo's pictures: small formulas of a point, so that the program carries none.

use std::f32::consts::TAU;

use image::{Rgb, RgbImage, Rgba, RgbaImage};

/// Width and height of the pictures.
const SIZE: (u32, u32) = (480, 320);

/// Red, green and blue, each from 0 to 1.
type Color = [f32; 3];

/// A picture of which `color` knows every point; `x` runs from -1.5 to 1.5, `y` from -1 to 1 downwards.
fn picture((width, height): (u32, u32), color: impl Fn(f32, f32) -> Color) -> RgbImage {
    RgbImage::from_fn(width, height, |column, row| {
        let x = ((column as f32 + 0.5) / width as f32 - 0.5) * 3.0;
        let y = ((row as f32 + 0.5) / height as f32 - 0.5) * 2.0;
        Rgb(color(x, y).map(byte))
    })
}

fn byte(value: f32) -> u8 {
    // `as` cuts off what is beyond a byte.
    (value * 255.0 + 0.5) as u8
}

fn mix(a: Color, b: Color, share: f32) -> Color {
    let share = share.clamp(0.0, 1.0);
    [0, 1, 2].map(|n| a[n] + (b[n] - a[n]) * share)
}

fn scale(color: Color, by: f32) -> Color {
    color.map(|channel| channel * by)
}

fn smooth(from: f32, to: f32, value: f32) -> f32 {
    let share = ((value - from) / (to - from)).clamp(0.0, 1.0);
    share * share * (3.0 - 2.0 * share)
}

/// A closed round of colours; the three phases choose which.
fn wheel(turn: f32, phases: Color) -> Color {
    phases.map(|phase| 0.5 + 0.5 * (TAU * (turn + phase)).cos())
}

/// The same number between 0 and 1 for the same cell, with no pattern to see.
fn chance(x: i32, y: i32) -> f32 {
    let mut bits = (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77);
    bits = (bits ^ (bits >> 15)).wrapping_mul(0x2c1b_3c6d);
    bits = (bits ^ (bits >> 12)).wrapping_mul(0x297a_2d39);
    ((bits ^ (bits >> 15)) >> 8) as f32 / (1 << 24) as f32
}

/// Smooth noise between 0 and 1, finer with each of `octaves`.
fn noise(x: f32, y: f32, octaves: u32) -> f32 {
    let (mut sum, mut weight, mut scale) = (0.0, 0.5, 1.0);
    for _ in 0..octaves {
        let (px, py) = (x * scale, y * scale);
        let (cx, cy) = (px.floor() as i32, py.floor() as i32);
        let (fx, fy) = (
            smooth(0.0, 1.0, px.fract().rem_euclid(1.0)),
            smooth(0.0, 1.0, py.fract().rem_euclid(1.0)),
        );
        let top = chance(cx, cy) + (chance(cx + 1, cy) - chance(cx, cy)) * fx;
        let bottom = chance(cx, cy + 1) + (chance(cx + 1, cy + 1) - chance(cx, cy + 1)) * fx;
        sum += weight * (top + (bottom - top) * fy);
        weight *= 0.5;
        scale *= 2.0;
    }
    sum
}

/// How soon `z² + c` runs away from `z`, from 0 to 1; `None` if it seems to stay.
fn escape(mut z: (f32, f32), c: (f32, f32), limit: u32) -> Option<f32> {
    for step in 0..limit {
        let square = z.0 * z.0 + z.1 * z.1;
        if square > 64.0 {
            let fine = step as f32 + 1.0 - (square.ln() / 2.0 / std::f32::consts::LN_2).log2();
            return Some((fine / limit as f32).max(0.0));
        }
        z = (z.0 * z.0 - z.1 * z.1 + c.0, 2.0 * z.0 * z.1 + c.1);
    }
    None
}

/// The Mandelbrot set.
pub(super) fn mandelbrot() -> RgbImage {
    picture(SIZE, |x, y| {
        match escape((0.0, 0.0), (x * 1.15 - 0.65, y * 1.15), 90) {
            Some(speed) => scale(
                wheel(speed.sqrt() * 1.6, [0.55, 0.45, 0.3]),
                smooth(0.0, 0.3, speed.sqrt()),
            ),
            None => [0.02, 0.03, 0.08],
        }
    })
}

/// A Julia set.
pub(super) fn julia() -> RgbImage {
    picture(SIZE, |x, y| match escape((x, y), (-0.8, 0.156), 110) {
        Some(speed) => wheel(speed.sqrt() + 0.1, [0.0, 0.08, 0.22]),
        None => [0.1, 0.02, 0.12],
    })
}

/// Heights of `N` ridges for each column of a picture, the nearest last. They depend on `x` alone, and
/// noise is dear.
fn ridges<const N: usize>(height: impl Fn(f32, f32) -> f32) -> Vec<[f32; N]> {
    let column = |n: u32| {
        let x = ((n as f32 + 0.5) / SIZE.0 as f32 - 0.5) * 3.0;
        std::array::from_fn(|layer| height(x, layer as f32))
    };
    (0..SIZE.0).map(column).collect()
}

/// The ridges at `x`.
fn at<const N: usize>(ridges: &[[f32; N]], x: f32) -> impl Iterator<Item = (f32, f32)> {
    let column = ((x / 3.0 + 0.5) * ridges.len() as f32) as usize;
    let ridges = ridges[column.min(ridges.len() - 1)];
    ridges
        .into_iter()
        .enumerate()
        .map(|(layer, height)| (layer as f32, height))
}

/// Dunes in the evening.
pub(super) fn dunes() -> RgbImage {
    let ridges = ridges::<5>(|x, depth| {
        let wave = noise(x * (0.8 + depth * 0.15) + depth * 7.3, depth, 3);
        -0.05 + depth * 0.2 + 0.34 * (wave - 0.45)
    });
    picture(SIZE, |x, y| {
        let sun = (x - 0.55).hypot(y + 0.22);
        let mut color = mix([0.22, 0.16, 0.42], [0.99, 0.62, 0.36], (y + 1.0) / 1.1);
        color = mix(
            [1.0, 0.93, 0.72],
            color,
            smooth(0.16, 0.18, sun).min(0.35 + sun),
        );
        for (depth, ridge) in at(&ridges, x).filter(|(_, ridge)| y > *ridge) {
            let near = mix([0.93, 0.52, 0.36], [0.27, 0.1, 0.2], depth / 4.0);
            color = mix(scale(near, 1.12), near, smooth(0.0, 0.12, y - ridge));
        }
        color
    })
}

/// Waves of colour that cross each other.
pub(super) fn plasma() -> RgbImage {
    picture(SIZE, |x, y| {
        let sum = (4.0 * x).sin()
            + (5.0 * y + 1.0).sin()
            + (3.5 * (x + y)).sin()
            + (9.0 * x.hypot(y + 0.4)).sin();
        wheel(sum * 0.14 + 0.05, [0.0, 0.33, 0.62])
    })
}

/// Land and sea from above.
pub(super) fn terrain() -> RgbImage {
    let height = |x: f32, y: f32| noise(x * 2.2 + 40.0, y * 2.2 + 9.0, 5);
    picture(SIZE, |x, y| {
        let here = height(x, y);
        let light = 1.0 + (here - height(x + 0.02, y + 0.02)) * 9.0;
        if here < 0.45 {
            return mix([0.03, 0.18, 0.36], [0.25, 0.6, 0.75], here / 0.45);
        }
        let land = mix([0.85, 0.78, 0.52], [0.2, 0.45, 0.2], (here - 0.45) * 12.0);
        scale(mix(land, [0.95, 0.95, 0.97], (here - 0.6) * 6.0), light)
    })
}

/// A ball under a lamp.
pub(super) fn ball() -> RgbImage {
    picture(SIZE, |x, y| {
        let square = (x * x + y * y) / 0.56;
        if square > 1.0 {
            let shade = smooth(0.0, 0.5, (x - 0.25).hypot((y - 0.78) * 3.0));
            return mix(
                [0.1, 0.11, 0.14],
                mix([0.4, 0.44, 0.5], [0.2, 0.22, 0.27], y),
                shade,
            );
        }
        let (nx, ny, nz) = (x / 0.75, y / 0.75, (1.0 - square).sqrt());
        let light = (-0.5 * nx - 0.6 * ny + 0.62 * nz).max(0.0);
        let stripe = if (nx.atan2(nz) * 6.0 / TAU * 2.0).floor() as i32 % 2 == 0 {
            [0.9, 0.3, 0.2]
        } else {
            [0.95, 0.9, 0.82]
        };
        let color = scale(stripe, 0.15 + 0.85 * light);
        mix(color, [1.0, 1.0, 1.0], light.powi(40))
    })
}

/// The sea at night.
pub(super) fn sea() -> RgbImage {
    picture(SIZE, |x, y| {
        let moon = (x + 0.5).hypot(y + 0.5);
        if y < 0.05 {
            let sky = mix([0.02, 0.03, 0.12], [0.2, 0.28, 0.5], (y + 1.0).powi(2));
            let glow = mix([0.75, 0.8, 0.95], sky, smooth(0.0, 1.0, moon).powf(0.4));
            return mix([0.98, 0.97, 0.9], glow, smooth(0.15, 0.16, moon));
        }
        let depth = y - 0.02;
        let ripple = noise(x * 3.0 / depth.max(0.08), 9.0 / depth.max(0.03), 3);
        let path = smooth(0.55, 0.0, (x + 0.5).abs() - ripple * 0.25) * smooth(0.38, 0.6, ripple);
        mix(
            mix([0.12, 0.2, 0.38], [0.01, 0.04, 0.1], depth),
            [0.9, 0.92, 0.95],
            path * 0.85,
        )
    })
}

/// Cells around points strewn by chance.
pub(super) fn cells() -> RgbImage {
    picture(SIZE, |x, y| {
        let (px, py) = (x * 3.0 + 20.0, y * 3.0 + 20.0);
        let (mut nearest, mut second, mut tint) = (9.0_f32, 9.0_f32, 0.0);
        for column in -1..=1 {
            for row in -1..=1 {
                let (cx, cy) = (px as i32 + column, py as i32 + row);
                let far =
                    (cx as f32 + chance(cx, cy) - px).hypot(cy as f32 + chance(cy, cx + 77) - py);
                if far < nearest {
                    (second, nearest, tint) = (nearest, far, chance(cx + 5, cy + 3));
                } else {
                    second = second.min(far);
                }
            }
        }
        let glass = scale(
            wheel(tint * 0.6 + 0.1, [0.0, 0.25, 0.5]),
            1.0 - nearest * 0.45,
        );
        mix(
            [0.08, 0.07, 0.1],
            glass,
            smooth(0.02, 0.07, second - nearest),
        )
    })
}

/// Tiles of two quarter circles, turned by chance.
pub(super) fn tiles() -> RgbImage {
    picture(SIZE, |x, y| {
        let (px, py) = (x * 4.0 + 30.0, y * 4.0 + 30.0);
        let (fx, fy) = (px.fract(), py.fract());
        let fx = if chance(px as i32, py as i32) < 0.5 {
            fx
        } else {
            1.0 - fx
        };
        let arc = (fx.hypot(fy) - 0.5)
            .abs()
            .min(((1.0 - fx).hypot(1.0 - fy) - 0.5).abs());
        let line = mix([0.98, 0.78, 0.25], [0.9, 0.36, 0.25], (y + 1.0) / 2.0);
        mix(
            line,
            mix([0.07, 0.22, 0.3], [0.1, 0.33, 0.4], (x + 1.5) / 3.0),
            smooth(0.13, 0.15, arc),
        )
    })
}

/// Clouds of gas and stars.
pub(super) fn nebula() -> RgbImage {
    picture(SIZE, |x, y| {
        let bend = noise(x * 1.3 + 5.0, y * 1.3 + 50.0, 4);
        let gas = noise(x * 1.6 + bend * 2.4 + 11.0, y * 1.6 - bend * 1.7 + 33.0, 4);
        let cloud = mix(
            [0.02, 0.02, 0.07],
            wheel(bend * 0.8 + 0.55, [0.1, 0.55, 0.35]),
            smooth(0.38, 0.85, gas),
        );
        let (sx, sy) = ((x * 60.0) as i32, (y * 60.0) as i32);
        let star = chance(sx + 500, sy + 900);
        let near = (x * 60.0).fract().abs() - 0.5;
        let size = near.hypot((y * 60.0).fract().abs() - 0.5);
        let bright = if star > 0.985 {
            smooth(0.5, 0.05, size) * chance(sy, sx)
        } else {
            0.0
        };
        mix(cloud, [1.0, 0.98, 0.92], bright)
    })
}

/// Two sets of rings.
pub(super) fn rings() -> RgbImage {
    picture(SIZE, |x, y| {
        let (a, b) = ((x - 0.45).hypot(y + 0.1), (x + 0.45).hypot(y - 0.1));
        let both = (a * 34.0).sin() * (b * 34.0).sin();
        mix(
            [0.07, 0.1, 0.25],
            mix([0.3, 0.85, 0.8], [0.95, 0.55, 0.75], (x + 1.5) / 3.0),
            0.5 + both * 0.5,
        )
    })
}

/// Mountains in the mist.
pub(super) fn mountains() -> RgbImage {
    let ridges = ridges::<6>(|x, depth| {
        let rock = noise(x * (1.1 + depth * 0.25) + depth * 13.7, depth * 3.0, 5);
        -0.45 + depth * 0.25 + 0.75 * (rock - 0.5)
    });
    picture(SIZE, |x, y| {
        let mut color = mix([0.62, 0.78, 0.9], [0.98, 0.93, 0.86], (y + 1.0) / 1.4);
        for (depth, ridge) in at(&ridges, x).filter(|(_, ridge)| y > *ridge) {
            let slope = mix([0.62, 0.72, 0.8], [0.06, 0.16, 0.2], depth / 5.0);
            color = mix(slope, [0.93, 0.92, 0.9], smooth(0.1, 0.8, y - ridge) * 0.7);
        }
        color
    })
}

/// One picture of an animation in which two moons go round; `turn` runs from 0 to 1.
pub(super) fn orbit(turn: f32) -> RgbImage {
    picture((240, 160), |x, y| {
        let mut color = if chance((x * 80.0) as i32, (y * 80.0) as i32 + 7) > 0.992 {
            [0.8, 0.8, 0.9]
        } else {
            [0.03, 0.04, 0.1]
        };
        for (distance, size, speed, paint) in [
            (0.0, 0.3, 0.0, [0.98, 0.75, 0.3]),
            (0.6, 0.11, 2.0, [0.4, 0.75, 0.95]),
            (1.05, 0.15, 1.0, [0.85, 0.45, 0.4]),
        ] {
            let angle = TAU * turn * speed + distance;
            let (px, py) = (
                x - distance * angle.cos() * 1.2,
                y - distance * angle.sin() * 0.7,
            );
            let far = px.hypot(py);
            if far < size {
                color = scale(
                    paint,
                    1.05 - 0.6 * smooth(0.0, size, (px + size * 0.3).hypot(py + size * 0.3) * 0.7),
                );
            }
        }
        color
    })
}

/// A drop of water on nothing, for an icon.
pub(super) fn drop() -> RgbaImage {
    RgbaImage::from_fn(64, 64, |column, row| {
        let (x, y) = (column as f32 / 31.5 - 1.0, row as f32 / 31.5 - 1.0);
        let width = if y > 0.3 {
            (0.42 - (y - 0.3).powi(2)).max(0.0).sqrt()
        } else {
            (y + 0.95).max(0.0) * 0.52
        };
        let cover = smooth(0.03, -0.03, x.abs() - width);
        let shine = smooth(0.3, 0.0, (x + 0.2).hypot(y - 0.15)) * 0.6;
        let [red, green, blue] = mix(
            mix([0.35, 0.75, 0.95], [0.05, 0.35, 0.7], (y + 1.0) / 2.0),
            [1.0, 1.0, 1.0],
            shine,
        )
        .map(byte);
        Rgba([red, green, blue, byte(cover)])
    })
}
