//! Files for `--crosscheck-object`: whatever the bytes are, they are taken or refused with a message.
//! As far as this goes without the kernel.

use acctd::crosscheck::object::{check, without_panic};
use acctd_common::contract::{EGRESS_DEST, INGRESS_SOURCE};

pub(crate) fn take(data: &[u8]) {
    match check(data, &[INGRESS_SOURCE, EGRESS_DEST]) {
        Ok(()) => {
            let _done_or_refused = without_panic(|| rehearse(data));
        }
        Err(refused) => assert!(!format!("{refused:#}").is_empty()),
    }
}

/// What the loader does to an object between its reading and what it asks of the kernel.
fn rehearse(data: &[u8]) -> anyhow::Result<()> {
    let mut object = aya_obj::Object::parse(data)?;
    let value = [24_u8];
    object.patch_map_data(
        [("IP4_PREFIX_LENGTH", (&value[..], false))]
            .into_iter()
            .collect(),
    )?;
    object.fixup_and_sanitize_btf(&aya_obj::btf::BtfFeatures::default())?;
    let sections = object
        .functions
        .keys()
        .map(|(section, _)| *section)
        .collect();
    let maps: Vec<_> = object.maps.clone().into_iter().collect();
    let maps = maps
        .iter()
        .zip(3..)
        .map(|((name, map), fd)| (name.as_str(), fd, map));
    object.relocate_maps(maps, &sections)?;
    object.relocate_calls(&sections)?;
    Ok(())
}
