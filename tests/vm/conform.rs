// SPDX-License-Identifier: MulanPSL-2.0
//! The suite of all drivers on devicemapper.

use crate::conformance::{self, Bench};
use crate::guest::Scenario;
use crate::scene::{Place, Pool, options};

fn on_a_pool(scenario: fn(&Bench)) {
    let pool = Pool::new();
    let place = Place::new();
    scenario(&Bench { name: "devicemapper", root: place.root.join("root"), options: options(&[]) });
    drop(place);
    drop(pool);
}

macro_rules! list {
    ($($scenario:ident)*) => {
        vec![$((stringify!($scenario), (|| on_a_pool(conformance::$scenario)) as fn())),*]
    };
}

pub fn all() -> Vec<Scenario> {
    conformance::for_each_scenario!(list)
}
