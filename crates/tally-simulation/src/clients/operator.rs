//! Somebody who deletes a topic now and then, and makes another one of the same name, while others write to it and read it.
//!
//! A topic is deleted by its id, so that a request that comes late does not meet the next one. Between the request that deletes and the
//! answer that tells of the new topic nobody can know to which of the two a name belongs ([`Model::births`] is odd then).

use super::Client;
use crate::model::{Model, REBORN};
use crate::network::Network;
use crate::port::{Port, Progress};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest};
use tally_protocol::ErrorCode;
use tally_testkit::client::topic_name;
use uuid::Uuid;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Asks for the id of the topic that is there.
    Find,
    Rest,
    Delete,
    Create,
}

/// The operator.
pub(crate) struct Operator {
    port: Port,
    step: Step,
    id: Uuid,
    resting: u64,
    is_finishing: bool,
}

impl Operator {
    pub(crate) fn new() -> Operator {
        Operator {
            port: Port::default(),
            step: Step::Find,
            id: Uuid::nil(),
            resting: 0,
            is_finishing: false,
        }
    }

    fn ask(&mut self, network: &mut Network, model: &mut Model) {
        match self.step {
            Step::Rest => {}
            Step::Find => {
                let topic = MetadataRequestTopic::default().with_name(Some(topic_name(REBORN)));
                let request = MetadataRequest::default()
                    .with_topics(Some(vec![topic]))
                    .with_allow_auto_topic_creation(false);
                self.port.ask(network, 12, &request);
            }
            Step::Delete => {
                model.births |= 1;
                let topic = DeleteTopicState::default().with_topic_id(self.id);
                let request = DeleteTopicsRequest::default()
                    .with_topics(vec![topic])
                    .with_timeout_ms(30_000);
                self.port.ask(network, 6, &request);
            }
            Step::Create => {
                let request = super::requests::create(&[(REBORN, 2)], network);
                self.port.ask(network, 7, &request);
            }
        }
    }

    /// Takes an answer; what is refused is asked again.
    fn take(&mut self, response: crate::port::Response, model: &mut Model) -> i16 {
        match self.step {
            Step::Rest => 0,
            Step::Find => {
                let response = response.of::<MetadataRequest>();
                let topic = &response.topics[0];
                if topic.error_code == 0 {
                    self.id = topic.topic_id;
                    self.step = Step::Rest;
                    // There is one, and nobody deletes it but this.
                    model.births += model.births % 2;
                } else if topic.error_code == ErrorCode::UnknownTopicOrPartition.code() {
                    self.step = Step::Create;
                }
                topic.error_code
            }
            Step::Delete => {
                let code = response.of::<DeleteTopicsRequest>().responses[0].error_code;
                if code == 0 || code == ErrorCode::UnknownTopicId.code() {
                    self.step = Step::Create;
                }
                code
            }
            Step::Create => {
                let code = response.of::<CreateTopicsRequest>().topics[0].error_code;
                if code == 0 || code == ErrorCode::TopicAlreadyExists.code() {
                    self.step = Step::Find;
                }
                code
            }
        }
    }
}

impl Client for Operator {
    fn step(&mut self, network: &mut Network, model: &mut Model) -> Result<(), String> {
        match self.port.progress(network) {
            Progress::Waiting => return Ok(()),
            Progress::Idle | Progress::Lost => {}
            Progress::Answered(response) => {
                let step = self.step;
                let code = self.take(response, model);
                network.say(|| format!("operator: {step:?}: {code}"));
                self.resting = network
                    .seed
                    .below(if self.step == Step::Rest { 60 } else { 6 });
            }
        }
        if self.resting > 0 {
            self.resting -= 1;
            return Ok(());
        }
        if self.step == Step::Rest && !self.is_finishing && network.seed.percent(20) {
            self.step = Step::Delete;
        }
        self.ask(network, model);
        Ok(())
    }

    fn finish(&mut self) {
        self.is_finishing = true;
    }

    fn is_done(&self) -> bool {
        self.is_finishing && self.step == Step::Rest
    }

    fn describe(&self) -> String {
        format!("operator at {:?}", self.step)
    }
}
