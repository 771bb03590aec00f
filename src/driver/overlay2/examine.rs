// SPDX-License-Identifier: MulanPSL-2.0
//! What is wrong with a layer's directory, without changing anything: the reading half of `repair`.

use crate::driver::Defect;
use crate::error::{ErrorKind, Result};
use crate::id::LayerId;
use crate::sys::fs::Dir;

use super::Overlay;
use super::layout::{DIFF, EMPTY, LinkName, MERGED, WORK};
use super::repair::{has_dir, read_link_name, read_lower};

impl Overlay {
    pub(super) fn examine(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Defect>> {
        let Some(layer) = self.find_layer(id)? else {
            return Ok(vec![Defect::missing("its data are missing")]);
        };
        if !has_dir(&layer, DIFF)? {
            return Ok(vec![Defect::missing("its directory diff is missing")]);
        }
        let mut found = Vec::new();
        found.extend(self.examine_link(id, &layer)?);
        for name in [WORK, MERGED] {
            found.extend(missing_dir(&layer, name)?);
        }
        if let Some(projects) = &self.projects {
            found.extend(projects.examine(&layer)?);
        }
        self.examine_lowers(&layer, parent, &mut found)?;
        Ok(found)
    }

    fn examine_link(&self, id: &LayerId, layer: &Dir) -> Result<Option<Defect>> {
        let Some(link) = read_link_name(layer)? else {
            return Ok(Some(Defect::derivable("its file link is lost")));
        };
        if self.link_owner(&link)?.as_ref() == Some(id) {
            return Ok(None);
        }
        Ok(Some(match self.resolve(&link)? {
            Some(other) => Defect::lasting(format!("its short name {link} leads to layer {other}")),
            None => Defect::derivable(format!("its short name {link} is lost")),
        }))
    }

    fn examine_lowers(&self, layer: &Dir, parent: Option<&LayerId>, found: &mut Vec<Defect>) -> Result<()> {
        let stored = match read_lower(layer) {
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            stored => stored,
        };
        let Some(parent) = parent else {
            match stored {
                Ok(None) => found.extend(missing_dir(layer, EMPTY)?),
                Ok(Some(_)) => {
                    found.push(Defect::lasting("it has lower layers, but its record names no parent"));
                }
                Err(error) => found.push(Defect::lasting(error.report())),
            }
            return Ok(());
        };
        let below = match self.find_layer(parent)? {
            Some(parent) => has_dir(&parent, DIFF)?,
            None => false,
        };
        if !below {
            found.push(Defect::lasting(format!("the data of its parent {parent} are missing")));
            return Ok(());
        }
        match stored {
            Ok(None) => found.push(Defect::derivable("its file lower is lost")),
            Err(error) => found.push(Defect::derivable(error.report())),
            Ok(Some(lowers)) => self.examine_stored(&lowers, parent, found)?,
        }
        Ok(())
    }

    fn examine_stored(&self, lowers: &[LinkName], parent: &LayerId, found: &mut Vec<Defect>) -> Result<()> {
        let mut all_there = true;
        for (index, lower) in lowers.iter().enumerate() {
            let resolved = self.resolve(lower)?;
            all_there &= resolved.is_some();
            match resolved {
                Some(first) if index == 0 && first != *parent => {
                    let what = format!(
                        "it stands on layer {first} by its file lower, but on {parent} by its record"
                    );
                    found.push(Defect::lasting(what));
                }
                Some(_) => {}
                // Lost by the layer that has this name, it is told of that layer.
                None if self.has_name(lower)? => {}
                None => {
                    found.push(Defect::derivable(format!("its file lower names {lower}, which is gone")));
                }
            }
        }
        if all_there && !self.goes_on_below(lowers)? {
            found.push(Defect::derivable("its file lower does not name the layers below its parent"));
        }
        Ok(())
    }

    fn has_name(&self, link: &LinkName) -> Result<bool> {
        for id in self.layers()? {
            if let Some(layer) = self.find_layer(&id)?
                && read_link_name(&layer)?.as_ref() == Some(link)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn missing_dir(layer: &Dir, name: &str) -> Result<Option<Defect>> {
    Ok(match layer.stat(name)? {
        None => Some(Defect::derivable(format!("its directory {name} is missing"))),
        Some(_) if has_dir(layer, name)? => None,
        Some(_) => Some(Defect::lasting(format!("its {name} is no directory"))),
    })
}
