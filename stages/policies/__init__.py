"""What stages share that improve a policy: rollouts, references, rewards, KL, the critic, alarms, the loop."""
