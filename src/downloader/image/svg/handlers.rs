//! Attributes that hold code for an event.

/// The events with a handler attribute, which is called `on` and the event. From the HTML Standard (section "Event
/// handlers on elements, Document objects, and Window objects"), SVG 1.1 and SVG 2 (event attributes), SMIL 3.0,
/// Pointer Events, Touch Events, CSS Animations, CSS Transitions, Fullscreen, Selection, Scroll Snap, Encrypted Media
/// Extensions and WebXR DOM Overlays. The last ones are browsers' own.
#[rustfmt::skip]
const EVENTS: &[&str] = &[
    "abort", "activate", "afterprint", "animationcancel", "animationend", "animationiteration", "animationstart",
    "auxclick", "beforeinput", "beforematch", "beforeprint", "beforetoggle", "beforeunload", "beforexrselect", "begin",
    "blur", "cancel", "canplay", "canplaythrough", "change", "click", "close", "command", "contextlost",
    "contextmenu", "contextrestored", "contentvisibilityautostatechange", "copy", "cuechange", "cut", "dblclick",
    "devicemotion", "deviceorientation", "deviceorientationabsolute", "drag", "dragend", "dragenter", "dragexit",
    "dragleave", "dragover", "dragstart", "drop", "durationchange", "emptied", "encrypted", "end", "ended", "error",
    "focus", "focusin", "focusout", "formdata", "fullscreenchange", "fullscreenerror", "gamepadconnected",
    "gamepaddisconnected", "gotpointercapture", "hashchange", "input", "invalid", "keydown", "keypress", "keyup",
    "languagechange", "load", "loadeddata", "loadedmetadata", "loadend", "loadstart", "lostpointercapture", "message",
    "messageerror", "mousedown", "mouseenter", "mouseleave", "mousemove", "mouseout", "mouseover", "mouseup",
    "offline", "online", "orientationchange", "pagehide", "pagereveal", "pageshow", "pageswap", "paste", "pause",
    "play", "playing", "pointercancel", "pointerdown", "pointerenter", "pointerleave", "pointermove", "pointerout",
    "pointerover", "pointerrawupdate", "pointerup", "popstate", "progress", "ratechange", "readystatechange",
    "rejectionhandled", "repeat", "reset", "resize", "scroll", "scrollend", "scrollsnapchange", "scrollsnapchanging",
    "securitypolicyviolation", "seeked", "seeking", "select", "selectionchange", "selectstart", "show", "slotchange",
    "stalled", "storage", "submit", "suspend", "timeupdate", "toggle", "touchcancel", "touchend", "touchmove",
    "touchstart", "transitioncancel", "transitionend", "transitionrun", "transitionstart", "unhandledrejection",
    "unload", "visibilitychange", "volumechange", "waiting", "waitingforkey", "wheel", "zoom",
    "beforecopy", "beforecut", "beforepaste", "mousewheel", "search",
];

/// Prefixes of browsers' own events, which are many and come and go.
const VENDORS: &[&str] = &["webkit", "moz", "ms"];

/// Returns `true` for the name of an event handler attribute. Other names that begin with `on` are harmless. The case
/// does not matter, because it does not where an SVG is part of an HTML page.
pub(super) fn is_handler(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.strip_prefix("on").is_some_and(|event| {
        EVENTS.contains(&event) || VENDORS.iter().any(|vendor| event.starts_with(vendor))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_handlers_are_handlers() {
        for name in [
            "onload",
            "onclick",
            "onLoad",
            "ONBEGIN",
            "ononline",
            "onwebkitanimationend",
            "onpointerdown",
        ] {
            assert!(is_handler(name), "{name}");
        }
        for name in [
            "on", "one", "only", "once", "online", "onset", "ontology", "load", "x:onload", "öon",
            "onfoo",
        ] {
            assert!(!is_handler(name), "{name}");
        }
    }
}
