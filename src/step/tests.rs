use std::time::Duration;

use serde_json::json;

use super::*;
use crate::downloader::image::ImageFormat;

fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register(Arc::new(measure::Kind));
    registry.register(Arc::new(delay::Kind));
    registry
}

fn subject(bytes: &'static [u8], format: ImageFormat, dimensions: Option<(u32, u32)>) -> Subject {
    Subject {
        body: Body::Memory(bytes.into()),
        facts: Facts {
            format: format.format(),
            dimensions,
            active: false,
        },
        sha256: Sha256::of(bytes),
        url: "http://a.example/1".to_owned(),
        album: None,
        name: None,
        may_replace: true,
    }
}

fn some() -> Subject {
    subject(b"bytes", ImageFormat::Png, Some((4, 3)))
}

#[tokio::test(start_paused = true)]
async fn each_result_stands_under_the_name_of_its_step() {
    let given = [
        json!("measure"),
        json!({"step": "delay", "for": "2s"}),
        json!({"step": "delay", "ms": 400}),
    ];
    let steps = registry().parse(&given).unwrap();
    let begun = tokio::time::Instant::now();
    let done = steps.run(some()).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_millis(2400));
    assert!(done.replaced.is_none());
    let expected = json!({
        "measure": {"width": 4, "height": 3, "perimeter": 14},
        "delay": {"ms": 2000},
        "delay#2": {"ms": 400},
    });
    assert_eq!(Value::Object(done.results), expected);
}

#[tokio::test]
async fn the_first_error_ends_it_and_names_its_step() {
    let steps = registry().parse(&[
        json!({"step": "delay", "ms": 0}),
        json!("measure"),
        json!("measure"),
    ]);
    let subject = subject(b"bytes", ImageFormat::Svg, None);
    let error = steps.unwrap().run(subject).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "step `measure`: no width and height are known of a `svg`"
    );
    assert_eq!(Value::Object(error.results), json!({"delay": {"ms": 0}}));
}

#[test]
fn what_cannot_be_run_is_told_with_its_place() {
    for (given, expected) in [
        (
            json!([1]),
            "`steps[0]`: is neither the name of a step nor an object with `step`",
        ),
        (
            json!(["measure", {}]),
            "`steps[1].step`: is needed: the name of a step",
        ),
        (json!([{"step": 1}]), "`steps[0].step`: is no text"),
        (
            json!(["mesure"]),
            "`steps[0]`: there is no step `mesure`; there are `delay`, `measure`",
        ),
        (
            json!([{"step": "x"}]),
            "`steps[0].step`: there is no step `x`; there are `delay`, `measure`",
        ),
        (
            json!(["delay"]),
            "`steps[0].ms` (step `delay`): is needed, or `for`",
        ),
        (
            json!([{"step": "delay", "ms": 1, "for": "1s"}]),
            "`steps[0].for` (step `delay`): cannot stand beside `ms`",
        ),
        (
            json!([{"step": "delay", "for": "2d"}]),
            "`steps[0].for` (step `delay`): is longer than a day",
        ),
        (
            json!([{"step": "measure", "width": 1}]),
            "`steps[0].width` (step `measure`): unknown parameter `width`, there are no fields",
        ),
    ] {
        let error = registry().parse(given.as_array().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
