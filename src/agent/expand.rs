//! A task as the runtime gets it: its templates expanded for this node.
//!
//! Knows one task and what the node is. The task on disk and in reports keeps its templates.

use super::task::{At, Container, Entry, Work};
use crate::types::{
    ExpandFailed, NodeDescription, Task, TemplateContext, expand_container, has_templates,
};

impl Entry {
    /// Tells whether the task must wait until it is known what the node is.
    pub(super) fn needs_description(&self) -> bool {
        has_templates(&self.task.spec.container)
    }

    /// Returns the task as it runs on this node; with templates only where the node is known.
    fn expanded(&self, node: Option<&NodeDescription>) -> Result<Box<Task>, ExpandFailed> {
        let mut task = Box::new(self.task.clone());
        if let Some(node) = node {
            task.spec_mut().container = expand_container(
                &self.task.spec.container,
                &TemplateContext::of(&self.task, node),
            )?;
        }
        Ok(task)
    }

    /// Returns the task for `work`; gives it up where its templates cannot be expanded, which
    /// trying again would not change.
    pub(super) fn expand_for(
        &mut self,
        work: Work,
        node: Option<&NodeDescription>,
        at: At,
    ) -> Option<Box<Task>> {
        match self.expanded(node) {
            Ok(task) => Some(task),
            Err(error) => {
                if work == Work::Start {
                    self.body.learn(Container::Ended, at.step);
                }
                self.give_up(&error.to_string(), at.now, at.date);
                None
            }
        }
    }
}
